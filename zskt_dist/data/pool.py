"""The images that an inversion has made so far, from which the student's batches are drawn.

Shapes: N images in memory, B of this worker's batch, G of the global one, C, H, W of one image.
"""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from zskt_dist.algorithms.protocols import Ask
from zskt_dist.data.batches import on_device, shifted
from zskt_dist.data.images import Standardise
from zskt_dist.errors import UserError
from zskt_dist.files import read_bytes
from zskt_dist.models import ImageShape
from zskt_dist.runs.sums import files_of, read_recorded, write_recorded
from zskt_dist.streams import Purpose, stream

_TOGETHER = 32
"""Images whose views the teacher is asked for at a time."""
VIEW_BYTES = 21
"""What a view takes beside the teacher's logits."""


def image_bytes(shape: ImageShape, num_classes: int, views: int) -> int:
    """What an image of a pool takes, with its views."""
    return math.prod(shape) + views * (4 * num_classes + VIEW_BYTES)


class Pool:
    """8-bit images on the device with the teacher's answers, equal on all workers.

    An image is drawn in one of its views: shifted, perhaps mirrored and darkened copies, on which the teacher is asked
    once. What a batch is depends on the seed, the iteration and the images, and not on the number of workers.

    Args:
        standardise: uint8 [B, C, H, W] to the networks' input space.
        batch_size: G, images per batch over all workers.
        part: This worker's slice of the global batch.
        views: V, of each image.
        margin: Most pixels by which a view is shifted; what comes in is black.
        flip: True if half of the views are mirrored.
        darken: Share of its brightness that a view loses at most, every other view of an image; 0: none does.
        size: Images that are added in all; their memory is taken once, with the first of them.
        capacity: Most bytes of images and answers; the oldest leave first.
    """

    def __init__(
        self,
        standardise: Standardise,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: slice = slice(None),
        *,
        views: int = 1,
        margin: int = 0,
        flip: bool = False,
        darken: float = 0.0,
        size: int,
        capacity: int = 2**30,
    ) -> None:
        self._standardise, self._batch_size, self._seed = standardise, batch_size, seed
        self._device, self._part = device, part
        self._views, self._margin, self._flip, self._darken = views, margin, flip, darken
        self._size, self._capacity = size, capacity
        self._rounds = self._added = 0
        self._kept: Views | None = None

    def __len__(self) -> int:
        return min(self._added, len(self._kept.images)) if self._kept else 0

    def newest(self, count: int | None = None) -> Tensor:
        """The last images that are kept, uint8 [at most count, C, H, W], the newest last; None: all."""
        count = len(self) if count is None else min(count, len(self))
        assert self._kept is not None
        return self._kept.images[self._slots(count)]

    def add(self, images: Tensor, ask: Ask) -> None:
        """Adds a round of uint8 images [B, C, H, W] of any device.

        Args:
            ask: The teacher's logits [V B, classes] of the views [V B, C, H, W], in the networks' input space.
        """
        count, rng = len(images), stream(self._seed, Purpose.AUGMENTATION, self._rounds)
        places = rng.integers(0, 2 * self._margin + 1, size=(count, self._views, 2))
        mirrored = rng.random((count, self._views)) < (0.5 if self._flip else 0.0)
        brightness = 1 - self._darken * rng.random((count, self._views), dtype=np.float32)
        brightness[:, ::2] = 1
        new = Views(
            images.to(self._device),
            torch.from_numpy(places).to(self._device),
            torch.from_numpy(mirrored).to(self._device),
            torch.from_numpy(brightness).to(self._device),
            torch.empty(0),
        )
        view = torch.arange(self._views, device=self._device)
        logits = [
            ask(self._seen(new, part.repeat_interleave(self._views), view.repeat(len(part))))
            for part in torch.arange(count, device=self._device).split(_TOGETHER)
        ]
        self._keep(new._replace(logits=torch.cat(logits).unflatten(0, (count, self._views))))

    def _keep(self, new: "Views") -> None:
        """Writes views over the oldest ones."""
        self._kept = self._kept or new.room(self._size, self._capacity)
        self._rounds, self._added = self._rounds + 1, self._added + len(new.images)
        slots = self._slots(min(len(new.images), len(self)))
        for kept, each in zip(self._kept, new, strict=True):
            kept[slots] = each[-len(slots) :]

    def _slots(self, count: int) -> Tensor:
        """Where the last images lie that were added."""
        assert self._kept is not None
        return torch.arange(self._added - count, self._added, device=self._device) % len(self._kept.images)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """This worker's images [B, C, H, W], normalised, and the teacher's logits [B, classes]."""
        rng = stream(self._seed, Purpose.POOL, iteration)
        assert self._kept is not None, "a round is added before the first draw"
        chosen = on_device(rng.integers(0, len(self), self._batch_size)[self._part], self._device)
        view = on_device(rng.integers(0, self._views, self._batch_size)[self._part], self._device)
        return self._seen(self._kept, chosen, view), self._kept.logits[chosen, view]

    def _seen(self, views: "Views", chosen: Tensor, view: Tensor) -> Tensor:
        mirrored = views.mirrored[chosen, view] if self._flip else None
        pixels = shifted(views.images[chosen], views.places[chosen, view].T, self._margin, mirrored)
        return self._standardise(pixels * views.brightness[chosen, view].view(-1, 1, 1, 1))


class Views(NamedTuple):
    """N images with V views of each.

    Attributes:
        images: uint8 [N, C, H, W].
        places: Row and column of each cut, as `data.batches.shifted` takes them, int64 [N, V, 2].
        mirrored: bool [N, V].
        brightness: Factor on the pixels, float32 [N, V].
        logits: The teacher's, [N, V, classes].
    """

    images: Tensor
    places: Tensor
    mirrored: Tensor
    brightness: Tensor
    logits: Tensor

    def room(self, size: int, capacity: int) -> Self:
        """Memory for so many images, as far as they fit into so many bytes; for one at least."""
        count = max(1, min(size, capacity // sum(tensor[0].nbytes for tensor in self)))
        return type(self)(*(tensor.new_empty((count, *tensor.shape[1:])) for tensor in self))


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
        if self.folder is None:
            return hashlib.sha256(content).hexdigest()
        return write_recorded(self._path(number), content)

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
    return files_of(folder, "round-*.safetensors")


def read_round(path: Path) -> Tensor:
    """The images of a round, uint8 [B, C, H, W]; raises UserError where the file is damaged."""
    try:
        return load(read_recorded(path, "restore it, or start over with --fresh"))["images"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
