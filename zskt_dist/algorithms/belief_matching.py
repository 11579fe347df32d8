"""Zero-shot knowledge transfer, Algorithm 1 of Micaelli & Storkey (arXiv:1905.09768).

Shapes: B images of this worker, z noise dimensions, C classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from zskt_dist.algorithms.generator_terms import GeneratorTerms
from zskt_dist.algorithms.losses import BeliefGap, attention_gap, attention_map
from zskt_dist.algorithms.protocols import Classifier, Metrics, TrainedClassifier, TrainedGenerator
from zskt_dist.models import Beliefs


class Noise(Protocol):
    """The noise of one iteration: this worker's slice of what all workers draw together."""

    def __call__(self, draw: int, /) -> Tensor:
        """The z of the draw with that number, [B, z_dim]."""

    def like(self, x: Tensor, draw: int, /) -> Tensor:
        """Standard normal images like those of x, one for each z of this worker; x may be a micro-batch of them."""


ImageNoise = Callable[[Tensor], Tensor]
"""Returns standard normal noise in the shape of a micro-batch's images."""


class Target(NamedTuple):
    """Pseudo-images with the teacher's outputs; constants to the student.

    B is the whole pseudo-batch of this worker, or one of its micro-batches.
    """

    x: Tensor
    logits: Tensor
    attention: tuple[Tensor, ...]


class GeneratorPart(NamedTuple):
    """Results to keep from a micro-batch of a generator step."""

    metrics: Metrics
    target: Target | None
    """Kept in `pre_update` mode only."""


class StudentPart(NamedTuple):
    """Results to keep from a micro-batch of a student step."""

    metrics: Metrics
    logits: Tensor


class BeliefMatching:
    """One `step` is one iteration: n_G generator steps away from the teacher's beliefs, n_S student steps towards them.

    Args:
        generator: Seeks images on which the student disagrees with the teacher.
        student: Learns to agree.
        teacher: Frozen, in eval mode; taps the layers that pair with the student's.
        gap: Divergence of beliefs, the loss of both (with opposite signs).
        beta: Weight of the attention term in the student's loss (Eq. 1); 0 leaves it out.
        attention: Form of the attention term, see `losses.attention_gap`.
        generator_steps: n_G.
        student_steps: n_S.
        pseudo_batch: Images the student learns from: `post_update`, of the generator after its
            steps (authors' code); `pre_update`, those of its last step (Algorithm 1 to the
            letter); `fresh`, of a new z for every student step.
        generator_step_statistics: True if the student's running batch-norm statistics also move
            while the generator learns (authors' code: True).
        terms: Extra terms of the generator's loss (Appendix 1).
        micro_batch: Most images in a forward pass; gradients add up to those of the batch. Batch norm normalises each
            micro-batch by itself, and `diversity` compares the images of one. None: all at once.
    """

    def __init__(
        self,
        generator: TrainedGenerator,
        student: TrainedClassifier,
        teacher: Classifier,
        *,
        gap: BeliefGap,
        beta: float = 250.0,
        attention: Literal["squared_mean", "l2"] = "squared_mean",
        generator_steps: int = 1,
        student_steps: int = 10,
        pseudo_batch: Literal["post_update", "pre_update", "fresh"] = "post_update",
        generator_step_statistics: bool = True,
        terms: GeneratorTerms | None = None,
        micro_batch: int | None = None,
    ) -> None:
        self.generator, self.student, self.teacher = generator, student, teacher
        self.gap, self.beta, self.attention = gap, beta, attention
        self.generator_steps, self.student_steps = generator_steps, student_steps
        self.pseudo_batch = pseudo_batch
        self.generator_step_statistics = generator_step_statistics
        self.terms, self.micro_batch = terms, micro_batch

    def step(self, noise: Noise) -> Metrics:
        """One iteration; `noise(0)` is z, further draws are made in `fresh` mode only."""
        metrics = self.learn(noise)
        self.decay()
        return metrics

    def learn(self, noise: Noise) -> Metrics:
        """An iteration without the decay of the learning rates: the part that is computed on the device."""
        z = self.micro_batches(noise(0))
        shares = [len(part) / sum(map(len, z)) for part in z]

        # Generator: seek images on which the student disagrees with the teacher.
        for draw in range(self.generator_steps):
            with self.student.frozen(statistics=self.generator_step_statistics) as student:
                micro_batches = self.generator.accumulate(range(len(z)), z, shares)
                generator_parts = [
                    self._seek(student, part, share, partial(self._image_noise, noise, draw, number))
                    for number, part, share in micro_batches
                ]
            generator_norm = self.generator.update()

        # Student: match the teacher on images that now stay fixed.
        for targets in self._targets(z, generator_parts, noise):
            student_parts = [self._match(target, share) for target, share in self.student.accumulate(targets, shares)]
            student_norm = self.student.update()

        return {
            **_mean([each.metrics for each in generator_parts], shares),
            **_mean([each.metrics for each in student_parts], shares),
            "generator_gradient_norm": generator_norm,
            "student_gradient_norm": student_norm,
            **confidence("teacher", torch.cat([target.logits for target in targets])),
            **confidence("student", torch.cat([each.logits for each in student_parts])),
        }

    def decay(self) -> None:
        """Moves both learning rates on by one iteration."""
        self.generator.decay()
        self.student.decay()

    def micro_batches(self, batch: Tensor) -> Sequence[Tensor]:
        """The parts of a batch, as even as possible: a small last one would have poor batch statistics."""
        return batch.tensor_split(math.ceil(len(batch) / (self.micro_batch or len(batch))))

    # Each micro-batch is a call of its own, so that its memory is free before the next one.

    def _seek(self, student: Classifier, z: Tensor, share: float, image_noise: ImageNoise) -> GeneratorPart:
        """Adds the gradient of one micro-batch to the generator's."""
        x = self.generator(z)
        belief, guess = self.teacher(x), student(x)
        loss = -self.gap(guess.logits, belief.logits)
        extra: Metrics = {}
        if self.terms is not None:
            terms, extra = self.terms(x, belief, guess, image_noise(x) if self.terms.needs_image_noise else None)
            loss = loss + terms
        self.generator.backward(share * loss)
        target = self._target(x, belief) if self.pseudo_batch == "pre_update" else None
        return GeneratorPart({"generator_loss": loss.detach(), **extra}, target)

    def _match(self, target: Target, share: float) -> StudentPart:
        """Adds the gradient of one micro-batch to the student's."""
        guess = self.student(target.x)
        kl = self.gap(guess.logits, target.logits)
        attention = attention_gap(guess.activations, target.attention, self.attention) if self.beta else kl * 0
        self.student.backward(share * (kl + self.beta * attention))
        return StudentPart({"kl": kl.detach(), "attention": attention.detach()}, guess.logits.detach())

    def _targets(
        self, z: Sequence[Tensor], generator_parts: Sequence[GeneratorPart], noise: Noise
    ) -> Iterator[Sequence[Target]]:
        """Yields the targets of each student step, in micro-batches."""
        if self.pseudo_batch == "fresh":
            for step in range(self.student_steps):
                yield [self._ask(part) for part in self.micro_batches(noise(step + 1))]
        else:
            before = [each.target for each in generator_parts if each.target is not None]
            yield from repeat(before or [self._ask(part) for part in z], self.student_steps)

    @torch.no_grad()
    def _ask(self, z: Tensor) -> Target:
        x = self.generator.ask(z)
        return self._target(x, self.teacher(x))

    def _target(self, x: Tensor, belief: Beliefs) -> Target:
        maps = tuple(attention_map(activation.detach()) for activation in belief.activations) if self.beta else ()
        return Target(x.detach(), belief.logits.detach(), maps)

    def _image_noise(self, noise: Noise, draw: int, number: int, x: Tensor) -> Tensor:
        """The noise for the images x of the micro-batch with that number."""
        return self.micro_batches(noise.like(x, draw))[number]


def _mean(parts: Sequence[Metrics], shares: Sequence[float]) -> Metrics:
    """Metrics of the batch from those of its micro-batches."""
    pairs = list(zip(parts, shares, strict=True))
    return {name: torch.stack([share * part[name] for part, share in pairs]).sum(dim=0) for name in parts[0]}


def confidence(who: str, logits: Tensor) -> Metrics:
    """Section 4.3: mean top probability, and how often each class is predicted [C]."""
    top = torch.softmax(logits, dim=1).max(dim=1)
    classes = torch.zeros(logits.shape[1], device=logits.device, dtype=logits.dtype)
    classes.index_add_(0, top.indices, torch.ones_like(top.values))
    return {f"{who}_confidence": top.values.mean(), f"{who}_classes": classes / len(logits)}
