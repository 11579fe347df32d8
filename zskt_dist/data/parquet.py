"""The Hugging Face image layout: `train-*.parquet` and `test-*.parquet` with encoded images and labels.

Columns: `image` or `img`, struct<bytes: binary, path: string> or plain binary, each an encoded
image (PNG, JPEG, …); `label`, integers. Class names are read from the schema's metadata where present.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image

from zskt_dist.data.images import Split, SplitName
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.models import ImageShape

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


class ParquetImages:
    """A folder of Parquet shards; without a train split it can only be evaluated on.

    Raises:
        ConfigError: the folder, the test split or a column is missing.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise ConfigError("data.root", str(root), "no such folder")
        self._files = {split: self._find(split) for split in ("train", "test")}
        self.require("test")
        schema = self._schema()
        self._image = self._column(schema, IMAGE_COLUMNS)
        self._label = self._column(schema, LABEL_COLUMNS)
        first = next(pq.ParquetFile(self._files["test"][0]).iter_batches(1, columns=[self._image]), None)
        if first is None:
            raise ConfigError("data.root", str(root), f"{self._files['test'][0].name} has no images")
        self.class_names = self._class_names(schema)
        """Class names in the Hugging Face metadata; None where there are none."""
        self.counts_classes = not self.class_names
        self.num_classes = len(self.class_names) if self.class_names else self._count_classes()
        height, width, channels = self._decode(_encoded(first.column(0))[0].as_py(), "the first test image").shape
        self.image_shape = ImageShape(channels, height, width)

    def read(self, split: SplitName) -> Split:
        """All images of a split, in the order of file names and rows.

        Raises:
            ConfigError: the split is missing.
            UserError: images differ in size, or one cannot be decoded.
        """
        self.require(split)
        table = self._table(split, self._image, self._label)
        channels, height, width = self.image_shape
        images = np.empty((len(table), height, width, channels), dtype=np.uint8)
        row = 0
        for chunk in table[self._image].chunks:
            for encoded in _encoded(chunk):
                image = self._decode(encoded.as_py(), f"image {row} of {split}")
                if image.shape != images.shape[1:]:
                    raise UserError(
                        f"{self.root}: image {row} of {split} is {image.shape}, the others are {images.shape[1:]}; "
                        "resize the images to one size first"
                    )
                images[row] = image
                row += 1
        return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), self._labels(table, split))

    def read_labels(self, split: SplitName) -> torch.Tensor:
        """Labels int64 [N] of a split, without decoding its images; raises the errors of `read`."""
        self.require(split)
        return self._labels(self._table(split, self._label), split)

    def _table(self, split: SplitName, *columns: str) -> pa.Table:
        """Columns of all shards; a column without a value may have the type null."""
        tables = (pq.read_table(path, columns=list(columns)) for path in self._files[split])
        return pa.concat_tables(tables, promote_options="default")

    def _labels(self, table: pa.Table, split: SplitName) -> torch.Tensor:
        """Labels int64 [N]; raises UserError for an image without one (Hugging Face's -1)."""
        labels = table[self._label].to_pylist()
        wrong = [row for row, label in enumerate(labels) if label is None or not 0 <= label < self.num_classes]
        if wrong:
            raise UserError(
                f"{self.root}: image {wrong[0]} of {split} has label {labels[wrong[0]]}, "
                f"expected 0 to {self.num_classes - 1}"
            )
        return torch.tensor(labels, dtype=torch.int64)

    def _schema(self) -> pa.Schema:
        """The columns of the shards; raises ConfigError where they differ in images or labels."""
        schemas = {}
        for path in self._files["test"] + self._files["train"]:
            try:
                schemas[path] = pq.read_schema(path)
            except (pa.ArrowInvalid, OSError):
                raise ConfigError("data.root", str(self.root), f"{path.name} is no Parquet file") from None
        first = schemas[self._files["test"][0]]
        image, label = self._column(first, IMAGE_COLUMNS), self._column(first, LABEL_COLUMNS)
        if not pa.types.is_integer(first.field(label).type):
            raise ConfigError(
                "data.root", str(self.root), f"column {label} (the label) holds {first.field(label).type}, not integers"
            )
        for path, schema in schemas.items():
            for name in (image, label):
                if name not in schema.names:
                    raise ConfigError("data.root", str(self.root), f"{path.name} has no column {name}, other shards do")
        return first

    def _find(self, split: str) -> list[Path]:
        return sorted(self.root.glob(f"{split}-*.parquet")) or sorted(self.root.glob(f"{split}.parquet"))

    def has(self, split: SplitName) -> bool:
        return bool(self._files[split])

    def require(self, split: SplitName) -> None:
        """Raises ConfigError where the split has no files."""
        if not self.has(split):
            raise ConfigError("data.root", str(self.root), f"has no {split}-*.parquet or {split}.parquet")

    def _column(self, schema: pa.Schema, names: tuple[str, ...]) -> str:
        for name in names:
            if name in schema.names:
                return name
        raise ConfigError(
            "data.root", str(self.root), f"no column named {' or '.join(names)}; there are: {', '.join(schema.names)}"
        )

    def _class_names(self, schema: pa.Schema) -> list[str] | None:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = metadata.get("info", {}).get("features", {}).get(self._label, {})
        return feature.get("names") or None

    def _count_classes(self) -> int:
        """Number of classes by the largest label of all shards; raises ConfigError where there are no labels."""
        files = self._files["train"] + self._files["test"]
        found = (pc.max(pq.read_table(path, columns=[self._label])[self._label]).as_py() for path in files)
        largest = max((int(label) for label in found if label is not None), default=-1)
        if largest < 0:  # Hugging Face marks unlabelled images by -1
            raise ConfigError("data.root", str(self.root), f"has no labels in its column {self._label}")
        return 1 + largest

    def _decode(self, encoded: bytes, which: str) -> np.ndarray:
        """An image as [H, W, C] unsigned bytes; C is 1 for gray images and 3 otherwise."""
        try:
            image = Image.open(io.BytesIO(encoded))
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        except (OSError, TypeError, ValueError) as error:
            raise UserError(f"{self.root}: {which} cannot be decoded: {error}") from None
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _encoded(column: pa.Array) -> pa.Array:
    return column.field("bytes") if pa.types.is_struct(column.type) else column
