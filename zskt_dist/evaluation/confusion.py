"""Which classes networks take for which, over labelled test images, as a small Parquet file.

A row is a cell of the matrix that is not 0, so N images make at most N rows for each network, however many classes
there are. Shapes: C classes.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zskt_dist.errors import DamagedFileError, one_line
from zskt_dist.files import write_atomic

FILE = "confusion.parquet"
"""In the folder of an evaluation."""
_MOST_CELLS = 10**7


@dataclass(frozen=True)
class Confusion:
    """Counts of test images.

    Attributes:
        classes: C.
        names: Of the classes, in the order of the labels; None where they are not known.
        cells: By network, `student` or `teacher`: int64 [n, 3] of label, predicted class and number of images.
    """

    classes: int
    names: list[str] | None
    cells: dict[str, np.ndarray]

    def matrix(self, network: str) -> np.ndarray:
        """int64 [C, C], label by predicted class."""
        found = np.zeros((self.classes, self.classes), np.int64)
        label, predicted, images = self.cells[network].T
        found[label, predicted] = images
        return found


def confusion_of(counts: Mapping[str, Any], names: Sequence[str] | None) -> Confusion:
    """From whole matrices, [C, C] of integers each."""
    whole = {network: np.asarray(matrix, dtype=np.int64) for network, matrix in counts.items()}
    cells = {network: np.column_stack([*np.nonzero(each), each[np.nonzero(each)]]) for network, each in whole.items()}
    return Confusion(len(next(iter(whole.values()))), list(names) if names else None, cells)


def write_confusion(path: Path, confusion: Confusion) -> None:
    """Writes the file: columns `network`, `label`, `predicted`, `images`; classes and names are in its metadata."""
    import pyarrow as pa  # late: it is needed only where such files are
    import pyarrow.parquet as pq

    cells = np.concatenate([np.zeros((0, 3), np.int64), *confusion.cells.values()])
    networks = [network for network, each in confusion.cells.items() for _ in each]
    columns = {"network": pa.array(networks, pa.string())}
    columns |= {name: pa.array(values) for name, values in zip(("label", "predicted", "images"), cells.T, strict=True)}
    about = json.dumps({"classes": confusion.classes, "names": confusion.names})
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({"confusion": about}), buffer)
    write_atomic(path, buffer.getvalue())


def read_confusion(path: Path) -> Confusion | None:
    """The content of the file; None where there is none.

    Raises:
        DamagedFileError: it is.
    """
    if not path.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if pq.read_metadata(path).num_rows > _MOST_CELLS:
            raise ValueError("it has more rows than any evaluation")
        found = pq.read_table(path)
        about = json.loads((found.schema.metadata or {})[b"confusion"])
        networks = np.array(found["network"].to_pylist(), dtype=str)
        cells = np.column_stack([found[name].to_numpy() for name in ("label", "predicted", "images")])
        classes, names = int(about["classes"]), about["names"]
        if len(cells) and not (cells.min() >= 0 and cells[:, :2].max() < classes):
            raise ValueError("its classes are out of range")
        if names is not None and (len(names) != classes or not all(isinstance(name, str) for name in names)):
            raise ValueError("its names of classes are none")
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        problem = f"{path} is damaged ({one_line(error)})"
        raise DamagedFileError(f"{problem}; delete it, and `zskt evaluate` writes it again with --fresh") from None
    return Confusion(classes, names, {str(network): cells[networks == network] for network in dict.fromkeys(networks)})
