"""The images that an inversion has made so far, from which the student's batches are drawn.

Shapes: N images in memory, B of this worker's batch, G of the global one, C, H, W of one image.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from zskt_dist.data.batches import on_device, shifted
from zskt_dist.data.images import Standardise
from zskt_dist.errors import UserError
from zskt_dist.files import read_bytes, write_atomic
from zskt_dist.streams import Purpose, stream


class Pool:
    """8-bit images on the device, equal on all workers.

    What a batch is depends on the seed, the iteration and the images, and not on the number of workers.

    Args:
        standardise: uint8 [B, C, H, W] to the networks' input space.
        batch_size: G, images per batch over all workers.
        part: This worker's slice of the global batch.
        margin: Most pixels by which a drawn image is shifted; what comes in is black.
        flip: True if half of the images are mirrored.
        mixup: Share of the batches in which each image is mixed with another one.
        capacity: Most bytes of images; the oldest leave first.
    """

    def __init__(
        self,
        standardise: Standardise,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: slice = slice(None),
        *,
        margin: int = 0,
        flip: bool = False,
        mixup: float = 0.0,
        capacity: int = 2**30,
    ) -> None:
        self._standardise, self._batch_size, self._seed = standardise, batch_size, seed
        self._device, self._part = device, part
        self._margin, self._flip, self._mixup, self._capacity = margin, flip, mixup, capacity
        self.images = torch.empty(0, dtype=torch.uint8, device=device)

    def add(self, images: Tensor) -> None:
        """Adds uint8 images [B, C, H, W] of any device, the newest last."""
        images = images.to(self._device)
        images = torch.cat([self.images, images]) if len(self.images) else images
        room = max(1, self._capacity // images[0].nbytes)
        self.images = images[-room:].clone() if len(images) > room else images

    def __call__(self, iteration: int) -> Tensor:
        """This worker's images [B, C, H, W], normalised."""
        rng = stream(self._seed, Purpose.POOL, iteration)
        chosen, others = rng.integers(0, len(self.images), size=(2, self._batch_size))
        places = rng.integers(0, 2 * self._margin + 1, size=(2, 2, self._batch_size))
        mirrored = rng.random((2, self._batch_size)) < 0.5
        shares = rng.random(self._batch_size, dtype=np.float32)
        x = self._cut(chosen, places[0], mirrored[0])
        if rng.random() < self._mixup:
            share = on_device(shares[self._part], self._device).view(-1, 1, 1, 1)
            x = share * x + (1 - share) * self._cut(others, places[1], mirrored[1])
        return x

    def _cut(self, chosen: np.ndarray, places: np.ndarray, mirrored: np.ndarray) -> Tensor:
        images = self.images[on_device(chosen[self._part], self._device)]
        if self._margin or self._flip:
            where = on_device(np.ascontiguousarray(places[:, self._part]), self._device)
            turned = on_device(mirrored[self._part], self._device) if self._flip else None
            images = shifted(images, where, self._margin, turned)
        return self._standardise(images)


class PoolFiles:
    """The rounds of a pool as files, each written once and whole, and kept when its images have left the memory.

    Args:
        folder: None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def write(self, number: int, images: Tensor) -> str:
        """Writes the images of a round, uint8 [B, C, H, W] on the CPU; returns the SHA-256 of the file, hex."""
        content = save({"images": images.contiguous()})
        if self.folder is not None:
            write_atomic(self._path(number), content)
        return hashlib.sha256(content).hexdigest()

    def read(self, number: int, sha256: str) -> Tensor:
        """The images of a round; raises UserError where the file is missing, or is not the one that was written."""
        content = read_bytes(self._path(number))
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            problem = "is missing" if content is None else "is damaged"
            raise UserError(
                f"{self._path(number)} {problem}, and the run learns from its images; restore it, or --fresh"
            )
        return load(content)["images"]

    def _path(self, number: int) -> Path:
        assert self.folder is not None, "checkpoints are kept only where files are"
        return self.folder / f"round-{number:05d}.safetensors"


def pool_files(folder: Path) -> list[Path]:
    """The files of all rounds, in their order."""
    return sorted(folder.glob("round-*.safetensors"))


def read_round(path: Path) -> Tensor:
    """The images of a round, uint8 [B, C, H, W]; raises UserError where the file is damaged."""
    try:
        return load(path.read_bytes())["images"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
