"""Training on real images: from scratch, finetuning, and KD + AT, the paper's baselines (section 4.1).

Shapes: B images of this worker, C classes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from zskt_dist.algorithms.losses import attention_gap, attention_map, belief_gap
from zskt_dist.algorithms.protocols import Classifier, Metrics, TrainedClassifier


class SupervisedTraining:
    """Cross entropy, one optimizer step per batch: from scratch, or from a zero-shot student (finetuning)."""

    def __init__(self, network: TrainedClassifier) -> None:
        self.network = network

    def step(self, x: Tensor, label: Tensor) -> Metrics:
        """x: [B, C, H, W], this worker's slice of the global batch; label: [B]."""
        metrics = self.learn(x, label)
        self.decay()
        return metrics

    def learn(self, x: Tensor, label: Tensor) -> Metrics:
        """A step without the decay of the learning rate: all of it that is done on the device."""
        logits = self.network(x).logits
        loss = functional.cross_entropy(logits, label)
        norm = self.network.step(loss)
        return {"loss": loss.detach(), "gradient_norm": norm, "train_accuracy": _accuracy(logits, label)}

    def decay(self) -> None:
        """Moves the learning rate on by one iteration."""
        self.network.decay()


class Distillation:
    """KD + AT: the student learns from labels, from the teacher's softened beliefs and from its attention maps.

    loss = (1 - alpha) CE + 2 alpha T^2 KL(teacher || student; T) / C + beta' AT, as in the authors'
    few-shot code; beta' is `beta` times 3 / number of attention layers.

    Args:
        teacher: Frozen, in eval mode; taps the layers that pair with the student's.
        attention: Form of the attention term, see `losses.attention_gap`.
    """

    def __init__(
        self,
        student: TrainedClassifier,
        teacher: Classifier,
        *,
        temperature: float = 4.0,
        alpha: float = 0.9,
        beta: float = 1000.0,
        attention: Literal["squared_mean", "l2"] = "squared_mean",
    ) -> None:
        self.student, self.teacher = student, teacher
        self.gap = belief_gap("forward_kl", temperature=temperature, reduction="mean")
        self.soft, self.alpha, self.beta, self.attention = 2 * alpha * temperature**2, alpha, beta, attention

    def step(self, x: Tensor, label: Tensor) -> Metrics:
        """x: [B, C, H, W], this worker's slice of the global batch; label: [B]."""
        metrics = self.learn(x, label)
        self.decay()
        return metrics

    def learn(self, x: Tensor, label: Tensor) -> Metrics:
        """A step without the decay of the learning rate: all of it that is done on the device."""
        with torch.no_grad():
            belief = self.teacher(x)
            maps = [attention_map(activation) for activation in belief.activations]
        guess = self.student(x)
        cross_entropy = functional.cross_entropy(guess.logits, label)
        kl = self.gap(guess.logits, belief.logits)
        attention = attention_gap(guess.activations, maps, self.attention) if maps else kl * 0
        beta = self.beta * 3 / max(1, len(maps))
        loss = (1 - self.alpha) * cross_entropy + self.soft * kl + beta * attention
        norm = self.student.step(loss)
        return {
            "loss": loss.detach(),
            "cross_entropy": cross_entropy.detach(),
            "kl": kl.detach(),
            "attention": attention.detach(),
            "gradient_norm": norm,
            "train_accuracy": _accuracy(guess.logits, label),
        }

    def decay(self) -> None:
        """Moves the learning rate on by one iteration."""
        self.student.decay()


def step_decay(iteration: int, iterations: int, milestones: tuple[float, ...], decay: float) -> float:
    """Learning-rate factor: `decay` once for every milestone (fraction of the run) that has passed."""
    return decay ** sum(iteration >= milestone * iterations for milestone in milestones)


def _accuracy(logits: Tensor, label: Tensor) -> Tensor:
    return (logits.detach().argmax(dim=1) == label).to(logits.dtype).mean()
