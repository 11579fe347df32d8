"""Images of the user's, however the folder holds them (`data.name=parquet`, docs/images.md)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from zskt_dist.data.decoding import Encoded, ImagesError, decode, is_deep, is_gray, open_image
from zskt_dist.data.images import Split, SplitName
from zskt_dist.data.labels import Labels, is_missing, number_labels
from zskt_dist.data.layouts import NAMES, find_splits
from zskt_dist.errors import ConfigError
from zskt_dist.files import describe_size
from zskt_dist.models import ImageShape

_FIRST = 100
_LARGE, _MOST_EXPANSION = 2**28, 500
"""Bytes of decoded images that need no look, and how many times those of their files more than these may be."""
"""Test images that say whether all are gray or in colour."""
_DARK = 16
"""Where no pixel of 16-bit images is as bright, of 255, they hold 12 bits or fewer."""

_NO_CLASS = "which stands for none; count the classes from 0, and give every image one or leave it out"


class UserImages:
    """A folder with a test split and perhaps a train split; without that it can only be evaluated on.

    Args:
        num_classes: How many classes the networks tell apart; None: that is not known.
        class_names: Names of the classes in the order that the user states; None: as they are found.

    Attributes:
        class_names: Names of the classes in the order of their numbers; None: they have none.
        labels_are_names: True if every label is the name of a class.
        counts_classes: True if `num_classes` is one more than the largest label: there may be further classes.
        files: Where the splits lie, in words.
        notes: Topic and words of what is not read as it is found.

    Raises:
        ConfigError: the folder or its test split is missing, or it is not clear how to read it.
    """

    def __init__(
        self, root: str | Path, num_classes: int | None = None, class_names: Sequence[str] | None = None
    ) -> None:
        self.root = Path(root)
        with self._refusing():
            if not self.root.is_dir():
                raise ImagesError("is a file; give its folder" if self.root.is_file() else "no such folder")
            self._splits = find_splits(self.root)
            self._labels = self._numbered(num_classes, class_names)
            self.image_shape, modes = self._look()
        self.num_classes, self.class_names = self._labels.num_classes, self._labels.names
        self.counts_classes = self._labels.counted
        self.labels_are_names = set(self._labels.numbers) <= set(self.class_names or ())
        self.files = "; ".join(f"{split} images: {rows.place}" for split, rows in self._splits.items())
        name = self._splits["test"].name
        stands_in = f"there is no test split, {name} stands for it" if name != "test" else None
        said = (("images", stands_in), ("images", modes), ("labels", self._labels.said))
        self.notes = tuple((topic, text) for topic, text in said if text)

    def read(self, split: SplitName) -> Split:
        """All images of a split, in the order of file names and rows.

        Raises:
            ConfigError: the split is missing, images differ in size or colour, or one cannot be decoded.
        """
        labels = self.read_labels(split)
        channels, height, width = self.image_shape
        with self._refusing():
            self._check_memory(split, len(labels))
            images = np.empty((len(labels), height, width, channels), dtype=np.uint8)
            for row, encoded in enumerate(self._splits[split].images()):
                images[row] = self._pixels(encoded, self._splits[split].where(row))
        return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)

    def _check_memory(self, split: SplitName, count: int) -> None:
        """Raises ImagesError where small files stand for more images than memory may hold."""
        needed, size = count * math.prod(self.image_shape), self._splits[split].size()
        if size is not None and needed > _LARGE and needed > _MOST_EXPANSION * size:
            problem = f"its {count:,} {split} images take {describe_size(needed)} in memory and {size:,} bytes in files"
            raise ImagesError(f"{problem}: no real images are so alike")

    def read_labels(self, split: SplitName) -> torch.Tensor:
        """Labels int64 [N] of a split, without decoding its images; raises the errors of `read`."""
        self.require(split)
        with self._refusing():
            rows = self._splits[split]
            labels = rows.labels()
            numbers = [self._labels.numbers.get(label, -1) for label in labels]
            for row, number in enumerate(numbers):
                if not 0 <= number < self.num_classes:
                    problem = f"{rows.where(row)} has label {labels[row]}"
                    if is_missing(labels[row]):
                        raise ImagesError(f"{problem}, {_NO_CLASS}")
                    raise ImagesError(f"{problem}, expected 0 to {self.num_classes - 1}")
        return torch.tensor(numbers, dtype=torch.int64)

    def has(self, split: SplitName) -> bool:
        return split in self._splits

    def require(self, split: SplitName) -> None:
        """Raises ConfigError where the split is missing."""
        if not self.has(split):
            names = " or ".join(NAMES[split])
            raise ConfigError("data.root", str(self.root), f"has no {split} images, in files or a folder named {names}")

    def _numbered(self, num_classes: int | None, stated: Sequence[str] | None) -> Labels:
        """One numbering of the labels of all splits; raises ImagesError where they do not agree."""
        splits = self._splits.values()
        names = [rows.class_names for rows in splits if rows.class_names]
        if any(each != names[0] for each in names):
            raise ImagesError("has other class names in its train files than in its test files, or in another order")
        train, test = (rows.values() if (rows := self._splits.get(split)) else set() for split in ("train", "test"))
        without = [label for label in test if is_missing(label)]
        if without and len(without) < len(test):  # else it would be the number of classes that is blamed
            rows = self._splits["test"]
            row, label = next((row, label) for row, label in enumerate(rows.labels()) if is_missing(label))
            raise ImagesError(f"{rows.where(row)} has label {label}, {_NO_CLASS}")
        if stated:
            return number_labels(train, test, list(stated), num_classes, "as data.class_names has them")
        return number_labels(train, test, names[0] if names else None, num_classes)

    def _look(self) -> tuple[ImageShape, str | None]:
        """Shape by the first test images, and words on modes that are converted.

        They are gray where some are of a gray mode and none shows a colour, whatever its mode.

        Raises:
            ImagesError: there are none, one cannot be decoded, or 16 bits are far from used.
        """
        rows = self._splits["test"]
        heads = []
        for row, encoded in enumerate(islice(rows.images(), _FIRST)):
            with _naming(rows.where(row)):
                heads.append(open_image(encoded))
        modes = {head.mode for head in heads}
        usual = modes in ({"L"}, {"RGB"})
        plains = []
        for row, head in enumerate(heads[:1] if usual else heads):
            with _naming(rows.where(row)):
                plains.append(decode(head))
        if not plains:
            raise ImagesError(f"{rows.place} has no images")
        brightest = max(int(np.asarray(plain).max()) for plain in plains)
        if is_deep(heads[0]) and brightest <= _DARK:
            problem = f"has test images of mode {heads[0].mode} that are all but black, {brightest} of 255 at most"
            raise ImagesError(f"{problem}; their values are not from 0 to white, so save them with 8 bits")
        gray = any(plain.mode == "L" for plain in plains) and all(is_gray(plain) for plain in plains)
        shape = ImageShape(1 if gray else 3, plains[0].height, plains[0].width)
        words = f"mode {', '.join(sorted(modes))} is read as {'gray' if gray else 'RGB'} of 8 bits"
        return shape, None if usual else words

    def _pixels(self, encoded: Encoded, where: str) -> np.ndarray:
        """uint8 [H, W, C]; raises ImagesError for an image that cannot be decoded, or is of another size or colour."""
        channels, height, width = self.image_shape
        with _naming(where):
            image = open_image(encoded)
            if image.width * image.height == width * height:  # else it is not worth the memory
                image = decode(image)
        if image.size != (width, height):
            problem = f"{where} is {image.height}x{image.width}, the first of test is {height}x{width}"
            raise ImagesError(f"{problem}; resize the images to one size first")
        if channels == 1 and not is_gray(image):
            raise ImagesError(f"{where} is in colour, the first of test are gray; save all in mode L, or all in RGB")
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        return pixels.reshape(height, width, channels)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except ImagesError as error:
            raise ConfigError("data.root", str(self.root), str(error)) from None


@contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except ImagesError as error:
        raise ImagesError(f"{where} cannot be decoded: {error}") from None
