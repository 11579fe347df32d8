"""Small data sets made on the spot."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from matplotlib.figure import Figure
from PIL import Image

from zskt_dist.data import ImageDataset, Split
from zskt_dist.files import write_atomic
from zskt_dist.models import ImageShape


def random_dataset(count: int, shape: tuple[int, int, int], **settings: Any) -> ImageDataset:
    """Images of random bytes; the label of an image is its position."""
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(count))
    chosen = {"statistics": ((0.5,) * shape[0], (0.25,) * shape[0])} | settings
    return ImageDataset("random", ImageShape(*shape), count, lambda _: split, **chosen)


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    """[H, W] or [H, W, C] values as a PNG file."""
    image = Image.fromarray(pixels)
    return encoded(image.convert(mode) if mode else image)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file of any kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def save_unrendered(figure: Figure, path: Path) -> None:
    """In place of `zskt_dist.figures.plots.save`: a picture of one pixel."""
    plt.close(figure)
    write_atomic(path, png(np.zeros((1, 1), np.uint8)))


def svg_unrendered(figure: Figure) -> str:
    """In place of `zskt_dist.figures.drawing.svg`: an empty drawing."""
    plt.close(figure)
    return '<svg xmlns="http://www.w3.org/2000/svg"/>'


def write_parquet(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[Any] | pa.Array,
    *,
    column: str = "image",
    struct: bool = True,
    label_column: str = "label",
    metadata: dict[bytes, bytes] | None = None,
    row_group_size: int | None = None,
) -> None:
    encoded = pa.array([{"bytes": i, "path": None} for i in images]) if struct else pa.array(images, pa.binary())
    table = pa.table({column: encoded, label_column: pa.array(labels)}).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
