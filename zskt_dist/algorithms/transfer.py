"""Zero-shot knowledge transfer, Algorithm 1 of Micaelli & Storkey (arXiv:1905.09768).

Shapes: B images of this worker, z noise dimensions, C classes.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from zskt_dist.algorithms.generator_terms import GeneratorTerms
from zskt_dist.algorithms.losses import BeliefGap, attention_gap, attention_map
from zskt_dist.algorithms.protocols import Classifier, Metrics, TrainedClassifier, TrainedGenerator


class Noise(Protocol):
    """The noise of one iteration: this worker's slice of what all workers draw together."""

    def __call__(self, draw: int, /) -> Tensor:
        """Z of the draw with that number, [B, z_dim]."""

    def like(self, x: Tensor, draw: int, /) -> Tensor:
        """Standard normal of the shape of the images x."""


class Target(NamedTuple):
    """Pseudo-images and what the teacher makes of them; constants to the student."""

    x: Tensor
    logits: Tensor
    attention: tuple[Tensor, ...]


class ZeroShotTransfer:
    """One `step` is one iteration: n_G generator steps against, n_S student steps towards the teacher.

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
        generator_step_statistics: Whether the student's running batch-norm statistics also move
            while the generator learns (authors' code: yes).
        terms: Extra terms of the generator's loss (Appendix 1).
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
    ) -> None:
        self.generator, self.student, self.teacher = generator, student, teacher
        self.gap, self.beta, self.attention = gap, beta, attention
        self.generator_steps, self.student_steps = generator_steps, student_steps
        self.pseudo_batch = pseudo_batch
        self.generator_step_statistics = generator_step_statistics
        self.terms = terms

    def step(self, noise: Noise) -> Metrics:
        """One iteration; `noise(0)` is z, further draws are made in `fresh` mode only."""
        z = noise(0)
        extra: Metrics = {}

        # Generator: seek images on which the student disagrees with the teacher.
        for draw in range(self.generator_steps):
            with self.student.frozen(statistics=self.generator_step_statistics) as student:
                x = self.generator(z)
                belief, guess = self.teacher(x), student(x)
                generator_loss = -self.gap(guess.logits, belief.logits)
                if self.terms is not None:
                    image_noise = noise.like(x, draw) if self.terms.needs_image_noise else None
                    terms, extra = self.terms(x, belief, guess, image_noise)
                    generator_loss = generator_loss + terms
                generator_norm = self.generator.step(generator_loss)

        # Student: match the teacher on images that now stay fixed.
        if self.pseudo_batch == "pre_update":
            targets = self._repeat(Target(x.detach(), belief.logits.detach(), self._maps(belief.activations)))
        elif self.pseudo_batch == "post_update":
            targets = self._repeat(self._target(z))
        else:
            targets = (self._target(noise(draw)) for draw in range(1, self.student_steps + 1))
        for target in targets:
            guess = self.student(target.x)
            kl = self.gap(guess.logits, target.logits)
            attention = attention_gap(guess.activations, target.attention, self.attention) if self.beta else kl * 0
            student_norm = self.student.step(kl + self.beta * attention)

        self.generator.decay()
        self.student.decay()
        return {
            "generator_loss": generator_loss.detach(),
            "kl": kl.detach(),
            "attention": attention.detach(),
            "generator_gradient_norm": generator_norm,
            "student_gradient_norm": student_norm,
            **extra,
            **_confidence("teacher", target.logits),
            **_confidence("student", guess.logits.detach()),
        }

    @torch.no_grad()
    def _target(self, z: Tensor) -> Target:
        x = self.generator.raw(z)
        belief = self.teacher(x)
        return Target(x, belief.logits, self._maps(belief.activations))

    def _maps(self, activations: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(attention_map(activation.detach()) for activation in activations) if self.beta else ()

    def _repeat(self, target: Target) -> Iterator[Target]:
        return (target for _ in range(self.student_steps))


def _confidence(who: str, logits: Tensor) -> Metrics:
    """Section 4.3: mean top probability, and how often each class is predicted [C]."""
    top = torch.softmax(logits, dim=1).max(dim=1)
    classes = torch.zeros(logits.shape[1], device=logits.device, dtype=logits.dtype)
    classes.index_add_(0, top.indices, torch.ones_like(top.values))
    return {f"{who}_confidence": top.values.mean(), f"{who}_classes": classes / len(logits)}
