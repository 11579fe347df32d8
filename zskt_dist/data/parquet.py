"""A split as Parquet shards with encoded images and labels, the Hugging Face image layout.

Columns: `image` or `img`, each an encoded image (PNG, JPEG, …) or the path of one: struct<bytes: binary, path: string>,
binary or string; `label`, `labels` or `fine_label`. Class names are read from the schema's metadata where present.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from zskt_dist.data.decoding import Encoded, ImagesError, lfs_hint
from zskt_dist.errors import one_line

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
_TYPES = pa.types
_AT_ONCE = 256
"""Rows: encoded images are taken from a file a few at a time."""
_MOST_BYTES = 2**30
_SUSPICIOUS = 100
"""Times that real images do not shrink in a file, as they are compressed before."""


class ParquetShards:
    """Images and labels of a split's shards, in the order given; implements `layouts.Rows`.

    Args:
        files: The shards, at least one.
        name: Name of the split.
        root: Folder of the data set.

    Raises:
        ImagesError: a file is no Parquet file, a column is missing or of a type that is not read.
    """

    def __init__(self, files: Sequence[Path], name: str, root: Path) -> None:
        self.name, self._files = name, files
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self.place = f"{files[0].relative_to(root)}{more}"
        schemas = {file: _schema(file) for file in files}
        first = schemas[files[0]]
        self._image, self._label = column_of(first, IMAGE_COLUMNS), column_of(first, LABEL_COLUMNS)
        for file, schema in schemas.items():
            self._check(file, schema)
            check_size(file, self._image)
        self.class_names = _class_names(first, self._label)

    def _check(self, file: Path, schema: pa.Schema) -> None:
        for column in (self._image, self._label):
            if column not in schema.names:
                raise ImagesError(f"{file.name} has no column {column}, other shards do")
        check_image_column(schema, self._image)
        kind = schema.field(self._label).type
        if not _holds_labels(kind):
            problem = f"column {self._label} (the label) holds {kind}; give each image one number or one name"
            raise ImagesError(problem)

    def images(self) -> Iterator[Encoded]:
        for file in self._files:
            yield from encoded_images(file, self._image)

    def labels(self) -> list[object]:
        labels: list[object] = []
        for file in self._files:
            with _reading(file):
                labels += pq.read_table(file, columns=[self._label])[self._label].to_pylist()
        return labels

    def values(self) -> set[object]:
        return set(self.labels())

    def where(self, row: int) -> str:
        return f"image {row} of {self.name}"

    def size(self) -> int | None:
        kind = pq.read_schema(self._files[0]).field(self._image).type
        holds_paths = _TYPES.is_string(kind) or _TYPES.is_large_string(kind)
        return None if holds_paths else sum(file.stat().st_size for file in self._files)


def column_of(schema: pa.Schema, names: Sequence[str]) -> str:
    """The first of the names that is a column; raises ImagesError where none is."""
    for name in names:
        if name in schema.names:
            return name
    raise ImagesError(f"no column named {' or '.join(names)}; there are: {', '.join(schema.names)}")


def check_image_column(schema: pa.Schema, column: str) -> None:
    """Raises ImagesError where a column cannot hold encoded images or paths of images."""
    kind = schema.field(column).type
    fields = {field.name for field in kind} if _TYPES.is_struct(kind) else set()
    tests = (_TYPES.is_null, _TYPES.is_binary, _TYPES.is_large_binary, _TYPES.is_string, _TYPES.is_large_string)
    if not fields & {"bytes", "path"} and not any(test(kind) for test in tests):
        raise ImagesError(f"column {column} holds {kind}, not image files; encode each image, for example as PNG")


def check_size(file: Path, column: str) -> None:
    """Raises ImagesError where a small file stands for more than memory may hold: no real images are packed so."""
    about, size = pq.read_metadata(file), file.stat().st_size
    if about.num_rows > size:
        raise ImagesError(f"{file.name} has {about.num_rows:,} rows in {size:,} bytes, which cannot be images")
    for number in range(about.num_row_groups):
        group = about.row_group(number)
        chunks = [group.column(each) for each in range(group.num_columns)]
        for chunk in (each for each in chunks if each.path_in_schema.split(".")[0] == column):
            # A value that stands in a chunk once may stand in every row.
            most = chunk.total_uncompressed_size * min(_AT_ONCE, group.num_rows)
            if most > _MOST_BYTES and chunk.total_uncompressed_size > _SUSPICIOUS * chunk.total_compressed_size:
                raise ImagesError(f"{file.name} has {size:,} bytes and unpacks to more than {_MOST_BYTES:,}: no images")


def encoded_images(file: Path, column: str) -> Iterator[Encoded]:
    """A column of images, row by row; paths are relative to the file's folder.

    Raises:
        ImagesError: the file is damaged.
    """
    with _reading(file):
        for batch in pq.ParquetFile(file).iter_batches(_AT_ONCE, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield _encoded(value, file.parent)


def _encoded(value: dict[str, bytes | str | None] | bytes | str | None, folder: Path) -> Encoded:
    if isinstance(value, dict):
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    return folder / value if isinstance(value, str) else value


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowInvalid, OSError):
        with file.open("rb") as content:
            raise ImagesError(f"{file.name} is no Parquet file{lfs_hint(content.read(100))}") from None


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ImagesError(f"{file.name} is damaged ({one_line(error)})") from None


def _holds_labels(kind: pa.DataType) -> bool:
    if _TYPES.is_dictionary(kind):
        return _holds_labels(kind.value_type)
    tests = (_TYPES.is_null, _TYPES.is_boolean, _TYPES.is_integer, _TYPES.is_floating)
    return any(test(kind) for test in (*tests, _TYPES.is_string, _TYPES.is_large_string))


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Class names in the Hugging Face metadata of a column of labels; None where there are none."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and names else None
