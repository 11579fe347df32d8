"""The files of pseudo-data: Parquet shards in the Hugging Face image layout (docs/pseudo_data.md).

A shard can be verified by itself: its schema holds what it was made from, rows are numbered, pages have checksums.

Shapes: n images of a shard, C channels, H and W spatial size, K classes.
"""

import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zskt_dist.files import write_atomic_with

About = dict[str, Any]
"""Facts about a whole set of shards: `format`, `image_shape`, `num_classes`, `images`, `shard_images`, …"""

FORMAT = 1
_EARLIER: About = {"method": "belief_matching", "seed_images": None}
"""Facts that the shards of earlier versions lack."""
PATTERN = re.compile(r"train-\d{5,}-of-\d{5,}\.parquet")
_KEY = b"zskt_dist"
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


class Pseudo(NamedTuple):
    """Pseudo-images with the teacher's logits."""

    pixels: np.ndarray
    """float16 [n, C, H, W], in the networks' normalised input space"""
    logits: np.ndarray
    """float32 [n, K], the teacher's logits for exactly these pixels"""
    source: np.ndarray
    """int32 [n], iteration of the generator's snapshot"""


def shard_count(about: About) -> int:
    return -(-about["images"] // about["shard_images"])


def shard_name(number: int, count: int) -> str:
    return f"train-{number:05d}-of-{count:05d}.parquet"


def shard_range(about: About, number: int) -> range:
    """Indices of the images of a shard; the last one may be smaller."""
    start = number * about["shard_images"]
    return range(start, min(start + about["shard_images"], about["images"]))


def comparable(about: Mapping[str, Any]) -> About:
    """`about` without the version that made the shards, which may differ within a set."""
    return _EARLIER | {key: value for key, value in about.items() if key != "version"}


def write_shard(folder: Path, about: About, number: int, images: Pseudo) -> None:
    """Writes a shard whole or not at all."""
    indices = shard_range(about, number)
    columns = {
        "image": _pngs(images.pixels, about["mean"], about["std"]) if _has_pictures(about) else None,
        "pixels": _lists(images.pixels.reshape(len(indices), -1)),
        "teacher_logits": _lists(images.logits),
        "label": images.logits.argmax(axis=1),
        "source": images.source,
        "index": np.arange(indices.start, indices.stop),
    }
    schema = shard_schema(about)
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    floats = [f"{name}.list.element" for name in ("pixels", "teacher_logits")]

    def write(path: Path) -> None:
        pq.write_table(
            table,
            path,
            compression="zstd",
            use_dictionary=["label", "source"],
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),  # signs and exponents together: 10 % smaller
            write_page_checksum=True,
        )

    write_atomic_with(folder / shard_name(number, shard_count(about)), write)


def shard_schema(about: About) -> pa.Schema:
    """Columns and metadata: the features for `datasets`, and what the set was made from."""
    types = {
        "image": _IMAGE,
        "pixels": pa.list_(pa.float16(), math.prod(about["image_shape"])),
        "teacher_logits": pa.list_(pa.float32(), about["num_classes"]),
        "label": pa.int64(),
        "source": pa.int32(),
        "index": pa.int64(),
    }
    if not _has_pictures(about):
        del types["image"]
    return pa.schema(types, {"huggingface": json.dumps(_features(about, list(types))), _KEY: json.dumps(about)})


def read_about(path: Path) -> About | None:
    """Facts about the set of a shard; None where the file is damaged or is no shard of pseudo-data."""
    try:
        return json.loads(pq.read_schema(path).metadata[_KEY])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def read_shard(path: Path, about: About, number: int, columns: tuple[str, ...] | None = None) -> pa.Table | None:
    """Columns of a shard; None where the file is missing, damaged or of another set.

    Args:
        columns: Columns to read and check; None: all.
    """
    found = read_about(path)
    if found is None or comparable(found) != comparable(about):
        return None
    schema = shard_schema(found)
    names = [name for name in schema.names if columns is None or name in (*columns, "index")]
    indices = shard_range(about, number)
    try:
        if not pq.read_schema(path).equals(schema, check_metadata=False):
            return None
        if pq.read_metadata(path).num_rows != len(indices):
            return None  # before they are decoded: a small file can hold many equal rows
        table = pq.read_table(path, columns=names, page_checksum_verification=True)
    except (OSError, pa.ArrowException, ValueError):
        return None
    return table if table["index"].to_pylist() == list(indices) else None


def as_array(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one length as an array [n, length]."""
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate(chunks).reshape(-1, column.type.list_size)


def _lists(rows: np.ndarray) -> pa.Array:
    """An array [n, length] as a column of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def _pngs(pixels: np.ndarray, mean: list[float], std: list[float]) -> pa.Array:
    """PNG files for people: pixels converted back to 0 to 255, clipped and rounded."""
    shift, scale = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (mean, std))
    shown = np.rint(255 * (pixels.astype(np.float32) * scale + shift).clip(0, 1)).astype(np.uint8)
    return pa.array([{"bytes": _png(image), "path": None} for image in shown], _IMAGE)


def _png(image: np.ndarray) -> bytes:
    """[C, H, W] bytes as a PNG file."""
    from PIL import Image  # late: only workers that write images need it

    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def _features(about: About, columns: list[str]) -> dict[str, Any]:
    """The features for Hugging Face's `datasets`; its old and new versions read `Sequence`."""

    def numbers(kind: str, length: int) -> dict[str, Any]:
        return {"_type": "Sequence", "feature": {"_type": "Value", "dtype": kind}, "length": length}

    features = {
        "image": {"_type": "Image"},
        "pixels": numbers("float16", math.prod(about["image_shape"])),
        "teacher_logits": numbers("float32", about["num_classes"]),
        "label": {"_type": "ClassLabel", "names": [str(label) for label in range(about["num_classes"])]},
        "source": {"_type": "Value", "dtype": "int32"},
        "index": {"_type": "Value", "dtype": "int64"},
    }
    return {"info": {"features": {name: features[name] for name in columns}}}


def _has_pictures(about: About) -> bool:
    """True if images have one channel or three, as a PNG file needs."""
    return about["image_shape"][0] in (1, 3)
