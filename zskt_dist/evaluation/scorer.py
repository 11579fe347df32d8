"""Counts right predictions, in one way for training, `evaluate`, exports, sweeps and the Python API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.scores import BINS, Calibration, calibration, calibration_sums, confusion, kl_divergence
from zskt_dist.config import Config
from zskt_dist.data import ImageDataset
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.world import World


class Scorer:
    """Compares a network's predictions with the right classes, batch by batch; the sums stay on the device.

    The right class is a label or the prediction of another network; in that case accuracy is agreement.

    Args:
        num_classes: C of the confusion matrix; None: no such matrix.
    """

    def __init__(self, world: World, num_classes: int | None = None) -> None:
        self._world = world
        self._bins = torch.zeros(BINS, 3, dtype=torch.float64, device=world.device)
        self._kl = torch.zeros((), dtype=torch.float64, device=world.device)
        self._confusion: Tensor | None = None
        if num_classes is not None:
            self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=world.device)

    def add(self, logits: Tensor, right: Tensor) -> "Scorer":
        """Adds the counts of a batch.

        Args:
            logits: [B, C] of the network; B may be 0.
            right: Classes, int64 [B], or the logits [B, C] of the other network.
        """
        classes = right
        if right.dim() == 2:
            classes = right.argmax(dim=1)
            self._kl += kl_divergence(logits, right).sum()
        self._bins += calibration_sums(logits, classes)
        if self._confusion is not None:
            self._confusion += confusion(classes, logits.argmax(dim=1), len(self._confusion))
        return self

    def score(self) -> "Score":
        """The score over the batches of all workers, which call this together."""

        def total(sums: Tensor) -> Tensor:
            return self._world.sum(sums.clone()).cpu()

        matrix = None if self._confusion is None else total(self._confusion)
        return Score(total(self._bins), total(self._kl).item(), matrix)


@dataclass(frozen=True)
class Score:
    """The counts of a `Scorer`, on the CPU.

    Attributes:
        bins: Sums of `calibration_sums`.
        kl_sum: KL(other network || network) in nats, summed over images.
        confusion: int64 [C, C], right class by predicted class.
    """

    bins: Tensor
    kl_sum: float
    confusion: Tensor | None

    @property
    def images(self) -> int:
        return int(self.bins[:, 0].sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose right class is predicted."""
        return self.bins[:, 2].sum().item() / self.images

    @property
    def confidence(self) -> float:
        """Mean of the top probability."""
        return self.bins[:, 1].sum().item() / self.images

    @property
    def kl(self) -> float:
        """Mean KL(other network || network) in nats."""
        return self.kl_sum / self.images

    @property
    def calibration(self) -> Calibration:
        return calibration(self.bins)

    @property
    def class_accuracies(self) -> list[float]:
        """Fraction of each class's images that are predicted right; 0 for a class without images."""
        assert self.confusion is not None
        matrix = self.confusion.double()
        return (matrix.diag() / matrix.sum(dim=1).clamp(min=1)).tolist()


@dataclass(frozen=True)
class Scores:
    """Fractions of the test images."""

    accuracy: float
    agreement: float | None
    """Same predicted class as the teacher; None without a teacher."""


def images_at_a_time(config: Config) -> int:
    """Most test images in a forward pass: `evaluation.batch_size`, but no more than a micro-batch."""
    most = config.evaluation.batch_size
    return min(most, config.engine.micro_batch or most)


_CONFUSED = 4096
"""Most classes of a confusion matrix that is counted at each evaluation: it takes 128 MiB."""
_IMAGES_OF_A_CLASS = 5
"""Fewest, on average, by which another order of the classes can be told from chance."""
_SHOWN = 20


def doubt(score: Score, names: Sequence[str] | None = None) -> str | None:
    """Why a teacher with this score on labelled images is hardly the right one, and what to look at; None: it may be.

    It is doubted if it is right at most twice as often as by chance, or, with few classes, a tenth of the way up from
    chance to always.

    Args:
        names: Names of the classes, by label.
    """
    assert score.confusion is not None
    classes, right = len(score.confusion), score.accuracy
    chance = 1 / classes
    if right > min(2 * chance, chance + 0.1 * (1 - chance)):
        return None
    found = f"the teacher is right on {right:.1%} of the test images, and chance is {chance:.1%}"
    labels = score.confusion.argmax(dim=0)  # the most frequent one of the images that it puts into each class
    in_order = score.confusion.amax(dim=0).sum().item() / score.images
    one_to_one = len(labels.unique()) == classes and score.images >= _IMAGES_OF_A_CLASS * classes
    if one_to_one and in_order > max(0.5, 2 * right):
        order = [names[label] if names else str(label) for label in labels.tolist()]
        listed = ",".join(order if classes <= _SHOWN else [*order[:3], "…", order[-1]])
        remedy = f"data.class_names=[{listed}] says so" if names else f"its classes 0, 1, … are labelled {listed}"
        return f"{found}; with its classes in another order it would be right on {in_order:.1%}: {remedy}"
    return (
        f"{found}: look at its normalisation (data.mean, data.std), the order of its classes, teacher.options and "
        "teacher.checkpoint"
    )


class Evaluator:
    """Scores networks on the test split of `dataset`, which the workers share.

    Args:
        teacher: Teacher to compare with; its predictions are computed once.

    Attributes:
        of_teacher: Its score by the labels; None without one.
        of_network: Score by the labels of the network that was asked last; None before.
    """

    def __init__(
        self, dataset: ImageDataset, world: World, *, batch_size: int = 512, teacher: nn.Module | None = None
    ) -> None:
        self._world, self._batch_size = world, batch_size
        shard = dataset.test.shard(world.rank, world.size)
        self._labels = shard.labels.to(world.device)
        # All workers must call a shared-out network equally often, so all have equally many images.
        missing = ceil(len(dataset.test.labels) / world.size) - len(shard.labels)
        self._images = torch.cat([shard.images, dataset.test.images[:missing]]).to(world.device)
        self._standardise = dataset.standardise(world.device)
        self.of_teacher: Score | None = None
        self.of_network: Score | None = None
        self._num_classes = dataset.num_classes if dataset.num_classes <= _CONFUSED else None
        self._teacher_classes: Tensor | None = None
        if teacher is not None:
            scorer = Scorer(world, dataset.num_classes)
            self._teacher_classes = self._ask(teacher, {scorer: self._labels})
            self.of_teacher = scorer.score()

    def __call__(self, network: nn.Module) -> Scores:
        """Scores of `network` in eval mode, with the workers' average batch-norm statistics."""
        by_labels, by_teacher = Scorer(self._world, self._num_classes), Scorer(self._world)
        scorers = {by_labels: self._labels}
        if self._teacher_classes is not None:
            scorers[by_teacher] = self._teacher_classes
        with averaged_statistics(network, self._world):
            self._ask(network, scorers)
        self.of_network = by_labels.score()
        return Scores(self.of_network.accuracy, by_teacher.score().accuracy if by_teacher in scorers else None)

    @torch.no_grad()
    def _ask(self, network: nn.Module, scorers: Mapping[Scorer, Tensor]) -> Tensor:
        """The classes that a network predicts for this worker's images, counted by scorers with their right classes."""
        predicted = []
        for start in range(0, len(self._images), self._batch_size):
            part = slice(start, start + self._batch_size)
            logits = network(self._standardise(self._images[part]))[: len(self._labels[part])]
            for scorer, right in scorers.items():
                scorer.add(logits, right[part])
            predicted.append(logits.argmax(dim=1))
        return torch.cat(predicted)
