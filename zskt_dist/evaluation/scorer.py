"""Accuracy and agreement on real test images, shared out over the workers."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.data import ImageDataset
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.world import World


@dataclass(frozen=True)
class Scores:
    """Fractions of the test images."""

    accuracy: float
    agreement: float | None
    """Same predicted class as the teacher; None without a teacher."""


def images_at_a_time(config: Config) -> int:
    """Most test images in a forward pass: `evaluation.batch_size`, and no more than a micro-batch has."""
    most = config.evaluation.batch_size
    return min(most, config.engine.micro_batch or most)


class Evaluator:
    """Evaluates networks of logits on the test split of `dataset`.

    Args:
        teacher: Its predictions are computed once.
    """

    def __init__(
        self, dataset: ImageDataset, world: World, *, batch_size: int = 512, teacher: nn.Module | None = None
    ) -> None:
        self._world, self._batch_size = world, batch_size
        self._total = len(dataset.test.labels)
        shard = dataset.test.shard(world.rank, world.size)
        self._labels = shard.labels.to(world.device)
        # A network that is shared out must be asked equally often by all workers, so all have equally many images.
        missing = ceil(self._total / world.size) - len(shard.labels)
        self._images = torch.cat([shard.images, dataset.test.images[:missing]]).to(world.device)
        self._standardise = dataset.standardise(world.device)
        self._teacher_classes = None if teacher is None else self._classes(teacher)

    def teacher_accuracy(self) -> float | None:
        if self._teacher_classes is None:
            return None
        return self._share(self._teacher_classes == self._labels)

    def __call__(self, network: nn.Module) -> Scores:
        """Scores of `network` in eval mode, with the workers' average batch-norm statistics."""
        with averaged_statistics(network, self._world):
            classes = self._classes(network)
        accuracy = self._share(classes == self._labels)
        agreement = None if self._teacher_classes is None else self._share(classes == self._teacher_classes)
        return Scores(accuracy, agreement)

    @torch.no_grad()
    def _classes(self, network: nn.Module) -> Tensor:
        """Predicted class of every image of this worker's shard."""
        batches = self._images.split(self._batch_size)
        return torch.cat([network(self._standardise(x)).argmax(dim=1) for x in batches])[: len(self._labels)]

    def _share(self, hits: Tensor) -> float:
        return self._world.sum(hits.sum().double()).item() / self._total
