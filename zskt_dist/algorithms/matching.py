"""The student's half of Algorithm 1, on given pseudo-images with the teacher's logits.

Shapes: B images of this worker, C classes.
"""

import math

import torch
from torch import Tensor

from zskt_dist.algorithms.belief_matching import confidence
from zskt_dist.algorithms.losses import BeliefGap
from zskt_dist.algorithms.protocols import Metrics, TrainedClassifier


class Matching:
    """One `step` is one student step: towards the teacher's logits, without a generator and without a teacher.

    Args:
        student: Learns to agree.
        gap: Divergence of beliefs; Eq. 1 without its attention term.
        micro_batch: Most images in a forward pass, as in `BeliefMatching`; None: all at once.
    """

    def __init__(self, student: TrainedClassifier, *, gap: BeliefGap, micro_batch: int | None = None) -> None:
        self.student, self.gap, self.micro_batch = student, gap, micro_batch

    def step(self, x: Tensor, teacher_logits: Tensor) -> Metrics:
        """x: [B, C, H, W], this worker's slice of the global batch; teacher_logits: [B, C]."""
        metrics = self.learn(x, teacher_logits)
        self.decay()
        return metrics

    def learn(self, x: Tensor, teacher_logits: Tensor) -> Metrics:
        """A step without the decay of the learning rate: the part that is computed on the device."""
        count = math.ceil(len(x) / (self.micro_batch or len(x)))
        parts = x.tensor_split(count), teacher_logits.tensor_split(count)
        matched = [self._match(*part, share=len(part[0]) / len(x)) for part in self.student.accumulate(*parts)]
        norm = self.student.update()
        kls, logits = zip(*matched, strict=True)
        return {
            "kl": torch.stack(kls).sum(),
            "student_gradient_norm": norm,
            **confidence("teacher", teacher_logits),
            **confidence("student", torch.cat(logits)),
        }

    def decay(self) -> None:
        """Moves the learning rate on by one iteration."""
        self.student.decay()

    def _match(self, x: Tensor, teacher_logits: Tensor, *, share: float) -> tuple[Tensor, Tensor]:
        """Adds the gradient of one micro-batch; returns its part of the batch's KL, and the student's logits."""
        logits = self.student(x).logits
        kl = share * self.gap(logits, teacher_logits)
        self.student.backward(kl)
        return kl.detach(), logits.detach()
