"""Inversion of a teacher: images that look to it like those it was trained on, and on which the student differs.

A generator is optimised for one small batch of images after another, and goes on from each to the next. It lowers
the distance to the statistics of the teacher's normalisation layers (DeepInversion, Yin et al. 2020), the cross
entropy with classes chosen beforehand, and a term that sets teacher and student apart (GapSSG, Fu et al. 2024; CMI,
Fang et al. 2021). The student then learns from all images so far, in `algorithms.matching`.

Shapes: B images, z noise dimensions, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from zskt_dist.algorithms.protocols import Ask, Metrics
from zskt_dist.algorithms.statistics import StatisticsGap
from zskt_dist.models import ImageShape
from zskt_dist.streams import normal

Gap = Literal["cross_entropy", "masked_kl", "none"]


class Made(NamedTuple):
    """Images of a part [kept B, channels, H, W], those of the last step last, and the metrics of that step."""

    images: Tensor
    metrics: Metrics


class Weights(NamedTuple):
    """Weights of the terms of a generator's loss; that of the labels is the first one, as it follows `label_target`."""

    statistics: float = 4.0
    labels: float = 0.5
    gap: float = 0.5
    label_target: float = 0.5


DEFAULT_WEIGHTS = Weights()


class Batch(NamedTuple):
    """What is to be made: noise z [B, z], which stays the same in all steps, and classes, int64 [B].

    `shifts`, int64 [steps, parts, 2], are the rows and columns by which the networks see each part displaced in a step:
    so no image depends on how it lies to a network's strides.
    """

    z: Tensor
    classes: Tensor
    shifts: np.ndarray

    def to(self, device: torch.device) -> Self:
        return self._replace(z=self.z.to(device), classes=self.classes.to(device))


def draw_batch(
    rng: np.random.Generator, z_dim: int, num_classes: int, *, images: int, steps: int, parts: int, jitter: int
) -> Batch:
    """A batch with as many images of each class as of the others, on the CPU; shifts are of at most `jitter` pixels."""
    z = normal(rng, images, z_dim)
    classes = balanced_classes(rng, images, num_classes)
    shifts = rng.integers(-jitter, jitter + 1, size=(steps, parts, 2))
    return Batch(torch.from_numpy(z), torch.from_numpy(classes), shifts)


def most_jitter(shape: ImageShape) -> int:
    """Pixels of displacement that a stride of four cannot hide from, in images large enough to bear them."""
    return max(shape[1:]) // 14


def balanced_classes(rng: np.random.Generator, count: int, num_classes: int) -> np.ndarray:
    """Classes in random order, int64 [count]; each as often as any other, as far as that comes out even."""
    whole, rest = divmod(count, num_classes)
    classes = np.concatenate([np.repeat(np.arange(num_classes), whole), rng.permutation(num_classes)[:rest]])
    return rng.permutation(classes)


class Inverter:
    """A generator with its optimizer, which makes batches of images, several workers together.

    A batch has parts, which the workers share out. Each has statistics of its own, in the generator's batch norms and
    in front of the teacher's: so what a part is does not depend on the worker that makes it.

    Args:
        generator: [B, z] to images [B, channels, H, W], in training mode; equal on all workers.
        optimizer: Over its parameters.
        teachers: Asks the teacher for each of this worker's parts, by number, and carries the statistics of the part.
        parts: Number of parts of a batch, over all workers.
        kept: Steps of a batch whose images are returned, evenly spaced up to the last; of fewer steps all.
        gap: Form of the term that sets teacher and student apart.
        add_up: Adds up gradients over the workers, in place; None: this is the only one.
    """

    def __init__(
        self,
        generator: nn.Module,
        optimizer: Optimizer,
        teachers: Mapping[int, StatisticsGap],
        parts: int = 1,
        *,
        kept: int = 1,
        gap: Gap = "cross_entropy",
        weights: Weights = DEFAULT_WEIGHTS,
        add_up: Callable[[Sequence[Tensor]], None] | None = None,
    ) -> None:
        self.generator, self.optimizer, self.teachers, self.parts = generator, optimizer, teachers, parts
        self.kept, self.gap, self.weights, self.add_up = kept, gap, weights, add_up
        self.label_weight = next(generator.parameters()).new_tensor(weights.labels)

    def make(self, batch: Batch, student: Ask | None = None) -> dict[int, Made]:
        """The images of the steps that are kept, of this worker's parts; all workers call it together.

        Args:
            batch: On the generator's device.
            student: Frozen, in eval mode; None: there is none to be set apart from.
        """
        z, classes = batch.z.tensor_split(self.parts), batch.classes.tensor_split(self.parts)
        parameters = list(self.generator.parameters())
        seen: dict[int, list[Made]] = {part: [] for part in self.teachers}
        steps = len(batch.shifts)
        kept = {steps * number // min(self.kept, steps) - 1 for number in range(1, min(self.kept, steps) + 1)}
        for step, shifts in enumerate(batch.shifts.tolist()):
            for parameter in parameters:  # a worker without a part takes part in the sum, too
                parameter.grad = torch.zeros_like(parameter)
            label_loss = torch.zeros_like(self.label_weight)
            for part, teacher in self.teachers.items():
                share = len(z[part]) / len(batch.z)
                made = self._seek(z[part], classes[part], shifts[part], teacher, share, student)
                label_loss += share * made.metrics["label_loss"]
                seen[part] += [made] if step in kept else []
            if self.add_up:
                self.add_up([*(parameter.grad for parameter in parameters if parameter.grad is not None), label_loss])
            self.optimizer.step()
        self._follow(label_loss)
        return {part: Made(torch.cat([made.images for made in each]), each[-1].metrics) for part, each in seen.items()}

    def _follow(self, label_loss: Tensor) -> None:
        """Raises the weight of the labels for the next batch where their loss is above its target, else lowers it."""
        factor = ((label_loss - self.weights.label_target) / 2).clamp(max=1).exp()
        self.label_weight = (self.label_weight * factor).clamp(self.weights.labels / 5, self.weights.labels * 40)

    def _seek(
        self,
        z: Tensor,
        classes: Tensor,
        shift: Sequence[int],
        teacher: StatisticsGap,
        share: float,
        student: Ask | None,
    ) -> Made:
        """Adds the gradient of a part."""
        images: Tensor = self.generator(z)
        x = images.roll(tuple(shift), (2, 3))
        logits, distance = teacher(x)
        label_loss = functional.cross_entropy(logits, classes)
        loss = self.weights.statistics * distance + self.label_weight * label_loss
        found = {
            "statistics_gap": distance,
            "label_loss": label_loss,
            "label_hits": (logits.argmax(dim=1) == classes).to(logits.dtype).mean(),
        }
        if student is not None and self.gap != "none":
            answer = student(x)
            term = GAPS[self.gap](answer, logits, classes)
            loss = loss + self.weights.gap * term
            agreed = (logits.argmax(dim=1) == answer.argmax(dim=1)).to(logits.dtype).mean()
            found |= {"gap_loss": term, "synthesis_agreement": agreed}
        (share * loss).backward()
        found |= {"synthesis_loss": loss}
        return Made(images.detach(), {name: value.detach() for name, value in found.items()})


def gap_cross_entropy(student: Tensor, teacher: Tensor, classes: Tensor) -> Tensor:
    """(1 - exp(-d)) [CE((t - s) / 2, y) + 0.2 CE(t + s, y)] of logits [B, C] and classes [B]: GapSSG's loss.

    Its minimum has the teacher sure of the class and the student not. d is the mean over images of the largest
    difference of the two probabilities, a constant to the gradient: the term fades where the two agree.
    """
    difference = (student.softmax(dim=1) - teacher.softmax(dim=1)).abs().amax(dim=1).mean().detach()
    apart = functional.cross_entropy((teacher - student) / 2, classes)
    together = functional.cross_entropy(teacher + student, classes)
    return (1 - torch.exp(-difference)) * (apart + 0.2 * together)


def masked_kl(student: Tensor, teacher: Tensor, classes: Tensor) -> Tensor:
    """Minus the mean KL(teacher || student) of images for which both predict the same class; CMI's loss.

    Images on which they differ count as 0: so the generator does not run after what means nothing to the teacher.
    """
    log_p, log_q = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    agreed = teacher.argmax(dim=1) == student.argmax(dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return -(divergence * agreed).mean()


GAPS = {"cross_entropy": gap_cross_entropy, "masked_kl": masked_kl}
"""Functions of the student's logits, the teacher's logits, and the classes."""


def round_starts(iterations: int, rounds: int, spread: float = 1.0) -> list[int]:
    """The student steps after which each round of synthesis begins.

    They are e (e + 1) / (R (R + 1)) of a share `spread` of all, rounded down: so round e has e + 1 times as many
    student steps as the first, and the last the rest of them. With few iterations several rounds begin together.
    """
    return [int(spread * iterations * number * (number + 1) / (rounds * (rounds + 1))) for number in range(rounds)]
