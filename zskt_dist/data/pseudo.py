"""Reads a folder of pseudo-data into memory and takes batches of it.

Shapes: N images, B of this worker's batch, G of the global one, C channels, H and W spatial size, K classes.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zskt_dist.data.batches import ShuffledEpochs, on_device
from zskt_dist.data.pseudo_shards import (
    FORMAT,
    PATTERN,
    About,
    as_array,
    comparable,
    read_about,
    read_shard,
    shard_count,
    shard_name,
    shard_range,
)
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape

KEY = "pseudo_data"
"""Configuration key that names the folder, for messages."""
_AGAIN = "the command that made it, python -m zskt_dist.synthesize, makes again what is missing"


@dataclass(frozen=True)
class PseudoData:
    """A complete folder of shards, of which only the schema has been read.

    Attributes:
        about: Settings and files that the shards were made from.
    """

    folder: Path
    about: About

    @classmethod
    def open(cls, folder: str) -> "PseudoData":
        """Opens a folder; raises ConfigError where it holds no pseudo-data, or a shard is missing."""
        path = Path(folder)
        if "://" in folder or not path.is_dir():
            raise ConfigError(KEY, folder, "no such folder on this machine; python -m zskt_dist.synthesize makes one")
        names = [name for file in sorted(path.glob("*.parquet")) if PATTERN.fullmatch(name := file.name)]
        if not names:
            problem = "has no train-00000-of-….parquet; expected a folder that python -m zskt_dist.synthesize has made"
            raise ConfigError(KEY, folder, problem)
        found = {name: read_about(path / name) for name in names}
        about = next((each for each in found.values() if each is not None), None)
        if about is None:
            raise ConfigError(KEY, folder, f"{names[0]} is damaged, or was not made by python -m zskt_dist.synthesize")
        if about.get("format") != FORMAT:
            raise ConfigError(KEY, folder, f"is of format {about.get('format')}, and this version reads {FORMAT}")
        expected = [shard_name(number, shard_count(about)) for number in range(shard_count(about))]
        if set(names) - set(expected) or any(each and comparable(each) != comparable(about) for each in found.values()):
            raise ConfigError(KEY, folder, "has shards of several sets; keep each in a folder of its own")
        if lost := [name for name in expected if found.get(name) is None]:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise ConfigError(KEY, folder, f"{lost[0]}{more} is missing or damaged; {_AGAIN}")
        return cls(path, about)

    @property
    def images(self) -> int:
        """N, number of images."""
        return int(self.about["images"])

    @property
    def nbytes(self) -> int:
        """Size in bytes of the tensors that `read` returns."""
        return self.images * (2 * math.prod(self.about["image_shape"]) + 4 * int(self.about["num_classes"]))

    def check(
        self,
        image_shape: ImageShape,
        num_classes: int,
        mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> None:
        """Raises ConfigError where the run's images differ in shape, classes or normalisation (if given)."""
        made = tuple(self.about["image_shape"]), int(self.about["num_classes"])
        if made != (tuple(image_shape), num_classes):
            shown = _kind(*made), _kind(image_shape, num_classes)
            problem = f"has images of {shown[0]}, this run's data set of {shown[1]}; use the data.* it was made for"
            raise ConfigError(KEY, str(self.folder), problem)
        for name, there in zip(("mean", "std"), mean_std or (), strict=False):
            if not np.allclose(self.about[name], there, atol=1e-3):
                problem = f"differs from the one that {self.folder} was made with; use data.{name}={self.about[name]}"
                raise ConfigError(f"data.{name}", list(there), problem)

    def read(self) -> tuple[Tensor, Tensor]:
        """Pixels float16 [N, C, H, W] and the teacher's logits float32 [N, K].

        Raises:
            ConfigError: a shard is damaged.
        """
        pixels = torch.empty(self.images, *self.about["image_shape"], dtype=torch.float16)
        logits = torch.empty(self.images, self.about["num_classes"], dtype=torch.float32)
        count = shard_count(self.about)
        for number in range(count):
            name = shard_name(number, count)
            table = read_shard(self.folder / name, self.about, number, ("pixels", "teacher_logits"))
            if table is None:
                raise ConfigError(KEY, str(self.folder), f"{name} is damaged; {_AGAIN}")
            rows = shard_range(self.about, number)
            pixels[rows.start : rows.stop].view(len(rows), -1).copy_(torch.from_numpy(as_array(table["pixels"])))
            logits[rows.start : rows.stop] = torch.from_numpy(as_array(table["teacher_logits"]))
        return pixels, logits


class PseudoBatches:
    """Shuffled batches of pseudo-data, which is held on `device`.

    Args:
        pixels: float16 [N, C, H, W].
        logits: float32 [N, K].
        batch_size: G, images per batch over all workers.
        seed: Seed of the order.
        part: This worker's slice of the global batch.
        channels_last: True if images have their channels innermost in memory.
    """

    def __init__(
        self,
        pixels: Tensor,
        logits: Tensor,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: slice = slice(None),
        *,
        channels_last: bool = False,
    ) -> None:
        self._pixels, self._logits = pixels.to(device), logits.to(device)
        self._order = ShuffledEpochs(len(logits), batch_size, seed)
        self._device, self._part = device, part
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """This worker's images, float32 [B, C, H, W], and the teacher's logits [B, K]."""
        index = on_device(self._order(iteration)[self._part], self._device)
        return self._pixels[index].to(torch.float32, memory_format=self._format), self._logits[index]


def _kind(image_shape: tuple[int, ...], num_classes: int) -> str:
    return f"{'x'.join(map(str, image_shape))} in {num_classes} classes"
