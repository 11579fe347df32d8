"""Training batches that do not depend on the number of workers, and balanced subsets to draw them from.

Shapes: B images of this worker, G of the global batch, C, H, W of one image.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zskt_dist.data.images import ImageDataset, Split
from zskt_dist.errors import ConfigError
from zskt_dist.streams import Purpose, stream


class ShuffledEpochs:
    """Chooses the examples of the global batch: G consecutive places in an endless sequence of shuffled epochs.

    Args:
        count: N, number of examples.
        batch_size: G, size of the global batch.
        seed: Seed of the order, which in each epoch comes from `(seed, epoch)`.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def __call__(self, iteration: int) -> np.ndarray:
        """Positions [G]."""
        first = iteration * self._batch_size
        epochs, places = np.divmod(np.arange(first, first + self._batch_size), self._count)
        return np.concatenate([self._epoch(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def _shuffle(self, epoch: int) -> np.ndarray:
        return stream(self._seed, Purpose.ORDER, epoch).permutation(self._count)


class TrainingBatches:
    """Shuffled, augmented, normalised batches of a data set's train split.

    The global batch of an iteration is that of `ShuffledEpochs`; augmentation comes from `(seed, iteration)`.

    Args:
        dataset: Its train split is held on `device`.
        batch_size: G, images per batch over all workers.
        seed: Seed of order and augmentation.
        part: This worker's slice of the global batch.
        indices: Positions in the train split to draw from; None: all of it.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: slice = slice(None),
        indices: np.ndarray | None = None,
    ) -> None:
        split = dataset.train
        if indices is not None:
            split = Split(split.images[indices], split.labels[indices])
        self._split = split.to(device)
        self._standardise = dataset.standardise(device)
        self._augmentation = dataset.augmentation
        self._batch_size, self._seed, self._device, self._part = batch_size, seed, device, part
        self._order = ShuffledEpochs(len(self._split.labels), batch_size, seed)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """This worker's images [B, C, H, W] and labels [B]."""
        index = on_device(self._order(iteration)[self._part], self._device)
        images = self._split.images[index]
        if self._augmentation != "none":
            images = self._augment(images, iteration)
        return self._standardise(images), self._split.labels[index]

    def _augment(self, images: Tensor, iteration: int) -> Tensor:
        rng = stream(self._seed, Purpose.AUGMENTATION, iteration)
        height, width = images.shape[-2:]
        margin = max(height, width) // 8  # 4 pixels for 32x32, as in the WRN literature
        shifts = rng.integers(0, 2 * margin + 1, size=(2, self._batch_size))[:, self._part]
        flips = rng.random(self._batch_size)[self._part] < 0.5
        mirrored = on_device(flips, self._device) if self._augmentation == "crop_flip" else None
        return shifted(images, on_device(shifts, self._device), margin, mirrored)


def shifted(images: Tensor, places: Tensor, margin: int, mirrored: Tensor | None = None) -> Tensor:
    """Images [B, C, H, W] cut out of ones with a black margin around them, and some of them mirrored.

    Args:
        images: uint8.
        places: Row and column of each cut, int64 [2, B], from 0 to twice the margin.
        margin: Pixels.
        mirrored: bool [B]; None: none of them.
    """
    height, width = images.shape[-2:]
    top, left = places
    rows = top[:, None] + torch.arange(height, device=images.device)  # [B, H]
    columns = left[:, None] + torch.arange(width, device=images.device)  # [B, W]
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(images, (margin, margin, margin, margin))  # black, before normalising
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def on_device(numbers: np.ndarray, device: torch.device) -> Tensor:
    """`numbers` as a tensor; it is pinned for a GPU: otherwise the host would wait until all earlier work is done."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def balanced_subset(labels: Tensor, num_classes: int, images_per_class: int, seed: int) -> np.ndarray:
    """Positions of M random images of each class, in order; each seed gives another choice.

    Args:
        labels: Labels of the train split, int64 [N].

    Raises:
        ConfigError: a class has fewer than M images.
    """
    rng = stream(seed, Purpose.SUBSET)
    chosen = []
    for label in range(num_classes):
        positions = np.flatnonzero(labels.numpy() == label)
        if len(positions) < images_per_class:
            problem = f"class {label} has {len(positions)} training images; use at most as many, or null for all"
            raise ConfigError("data.images_per_class", images_per_class, problem)
        chosen.append(rng.permutation(positions)[:images_per_class])
    return np.sort(np.concatenate(chosen))
