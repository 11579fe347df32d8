"""Images in memory: unsigned bytes, converted to the networks' input space when a batch is taken.

Shapes: N images of a split, B of a batch, C channels, H and W spatial size.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zskt_dist.models import ImageShape, Statistics
from zskt_dist.runs.result import LabelledImages

SplitName = Literal["train", "test"]


class Split(NamedTuple):
    """Images and labels, on one device."""

    images: Tensor
    """uint8 [N, C, H, W]"""
    labels: Tensor
    """int64 [N]"""

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def about(self) -> LabelledImages:
        """Number and digest, of a split on the CPU."""
        digest = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return {"images": len(self.labels), "sha256": digest.hexdigest()}

    def shard(self, rank: int, size: int) -> "Split":
        """Every size-th image; the shards of all ranks together are the split."""
        return Split(self.images[rank::size], self.labels[rank::size])

    def batches(self, batch_size: int) -> Iterator["Split"]:
        """Batches in order; the last one may be smaller."""
        for start in range(0, len(self.labels), batch_size):
            yield Split(self.images[start : start + batch_size], self.labels[start : start + batch_size])


class Standardise:
    """Converts bytes to the normalised input space: (pixel / 255 - mean) / std for each channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        # One multiplication and one addition: scale * pixel + shift.
        self.scale = (1 / (255 * torch.tensor(std, device=device))).view(1, -1, 1, 1)
        self.shift = (-torch.tensor(mean, device=device) / torch.tensor(std, device=device)).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Pixels from 0 to 255, of any type, [B, C, H, W] -> float32 [B, C, H, W]."""
        return images * self.scale + self.shift


def as_bytes(x: Tensor, statistics: Statistics) -> Tensor:
    """Normalised images [B, C, H, W] as the bytes that they come from, or the nearest ones; uint8."""
    mean, std = (torch.tensor(each, device=x.device).view(1, -1, 1, 1) for each in statistics)
    return ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def sha256_of_pixels(images: Tensor) -> str:
    """Hex, of uint8 images [N, C, H, W] on the CPU."""
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class ImageDataset:
    """A data set whose splits are read on first use.

    Attributes:
        name: Name for messages and tags.
        image_shape: (C, H, W).
        num_classes: Labels are 0 … num_classes - 1.
        read: Reads a split into memory.
        statistics: Per-channel mean and standard deviation of pixels in [0, 1]; None: measured
            on the train split.
        augmentation: `none`, `crop` (random translation by up to max(H, W) / 8 pixels) or `crop_flip`.
        read_labels: Reads a split's labels int64 [N] without its images; None: there is no cheaper way.
        counts_classes: True if `num_classes` is only one more than the largest label: there may be further classes.
        has_train: True if there is a train split, as far as that is known without reading it.
        files: Where the splits lie, in words; None: where such data always lie.
        notes: Topic and words of what is not read as it is found, for plan and log.
    """

    name: str
    image_shape: ImageShape
    num_classes: int
    read: Callable[[SplitName], Split]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    augmentation: Literal["none", "crop", "crop_flip"] = "none"
    read_labels: Callable[[SplitName], Tensor] | None = None
    counts_classes: bool = False
    has_train: bool = True
    files: str | None = None
    notes: tuple[tuple[str, str], ...] = ()

    @cached_property
    def train(self) -> Split:
        return self.read("train")

    @property
    def train_labels(self) -> Tensor:
        """Labels of the train split, int64 [N]."""
        return self.read_labels("train") if self.read_labels else self.train.labels

    @cached_property
    def test(self) -> Split:
        return self.read("test")

    @cached_property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation of pixels in [0, 1]."""
        if self.statistics:
            return self.statistics
        # From the histogram of each channel: exact in integers, and no float copy of the images.
        means, stds = [], []
        levels = torch.arange(256, dtype=torch.float64) / 255
        for channel in self.train.images.unbind(dim=1):
            share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
            mean = (share * levels).sum()
            means.append(round(mean.item(), 4))
            std = (share * (levels - mean).square()).sum().sqrt().item()
            stds.append(round(std, 4) or 1.0)  # a channel that never changes has nothing to scale
        return tuple(means), tuple(stds)

    def standardise(self, device: torch.device) -> Standardise:
        return Standardise(*self.mean_std, device)
