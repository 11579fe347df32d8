"""Images without labels that a user has: a folder of image files, or Parquet files.

They are brought to the networks' shape: the middle square part of the right proportions, resized, gray or in colour.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from torch import Tensor

from zskt_dist.data.decoding import SUFFIXES, ImagesError, decode, open_image
from zskt_dist.data.parquet import IMAGE_COLUMNS, check_image_column, check_size, column_of, encoded_images
from zskt_dist.errors import NO_SUCH_FILE, ConfigError
from zskt_dist.models import ImageShape


def read_unlabelled(key: str, location: str, image_shape: ImageShape) -> Tensor:
    """All images of a folder and the folders in it, or of one file, uint8 [N, C, H, W], in the order of their names.

    Args:
        key: The configuration key that names `location`, for errors.
        location: A folder of image files and Parquet files with a column `image` or `img`, or one such file.

    Raises:
        ConfigError: there is no such file or folder, it has no image, or one of them cannot be read.
    """
    path = Path(location)
    if not path.exists():
        raise ConfigError(key, location, NO_SUCH_FILE)
    if image_shape.channels not in (1, 3):
        raise ConfigError(key, location, f"image files have 1 or 3 channels, the networks take {image_shape.channels}")
    images = []
    for file in _files(path):
        try:
            images += [_fitted(image, image_shape) for image in _images(file)]
        except (OSError, ValueError) as error:
            raise ConfigError(key, location, f"{file.name} cannot be read ({error})") from None
    if not images:
        raise ConfigError(key, location, f"has no images: no Parquet file, and no {', '.join(sorted(SUFFIXES))}")
    return torch.from_numpy(np.stack(images))


def count_unlabelled(location: str) -> int:
    """How many images there are, without reading them; 0 where there is nothing, or nothing that can be read."""
    files = _files(Path(location))
    try:
        rows = sum(pq.read_metadata(file).num_rows for file in files if file.suffix.lower() == ".parquet")
    except (OSError, ValueError):  # whoever reads the images says which file it is
        rows = 0
    return rows + sum(file.suffix.lower() in SUFFIXES for file in files)


def _files(path: Path) -> list[Path]:
    """The file, or those of a folder and of the folders in it, in the order of their names."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in found if file.is_file())


def _images(file: Path) -> Iterator[Image.Image]:
    """Decoded images of a file; raises ImagesError, and other OSError and ValueError."""
    if file.suffix.lower() in SUFFIXES:
        yield decode(open_image(file))
    elif file.suffix.lower() == ".parquet":
        schema = pq.read_schema(file)
        column = column_of(schema, IMAGE_COLUMNS)
        check_image_column(schema, column)
        check_size(file, column)
        for row, encoded in enumerate(encoded_images(file, column)):
            try:
                yield decode(open_image(encoded))
            except ImagesError as error:
                raise ImagesError(f"row {row}: {error}") from None


def _fitted(image: Image.Image, shape: ImageShape) -> np.ndarray:
    """uint8 [C, H, W]: the middle part of the right proportions."""
    plain = image.convert("L" if shape.channels == 1 else "RGB")
    pixels = np.asarray(ImageOps.fit(plain, (shape.width, shape.height), Image.Resampling.BILINEAR))
    return pixels[None] if shape.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
