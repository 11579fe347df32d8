"""The run's own records: `history.parquet`, and `progress.json` for a progress bar in another process."""

import io
import time
from contextlib import suppress
from pathlib import Path

from zskt_dist.errors import DamagedFileError, one_line
from zskt_dist.files import write_atomic, write_json
from zskt_dist.tracking.base import Row, is_evaluation

_MOST_NUMBERS = 10**7


class History:
    """Metric rows in the order of iterations; all reports for one iteration share a row.

    Args:
        path: The Parquet file; None: rows are kept in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[Row] = []

    def log(self, row: Row) -> None:
        if self.rows and self.rows[-1]["iteration"] == row["iteration"]:
            self.rows[-1] = row | self.rows[-1]
        else:
            self.rows.append(dict(row))

    def write(self) -> None:
        """Replaces the Parquet file: one column per metric, null where an iteration has none."""
        if self.path is not None:
            write_atomic(self.path, _parquet(self.rows))


def read_history(path: Path) -> list[Row]:
    """The rows of a `history.parquet`, without the nulls; none where there is no file.

    Raises:
        DamagedFileError: it is.
    """
    if not path.exists():
        return []
    import pyarrow as pa  # late: it is needed only where rows are written
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(path)
        if about.num_rows * about.num_columns > _MOST_NUMBERS:
            raise ValueError(f"it has {about.num_rows:,} rows of {about.num_columns}, more than any run")
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = f"{path} is damaged ({one_line(error)})"
        raise DamagedFileError(f"{problem}; restore it, or delete it, and the run has no curves") from None
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def _parquet(rows: list[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {
        name: pa.array([row.get(name) for row in rows], pa.int64() if name in ("iteration", "time") else pa.float64())
        for name in names
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


class ProgressFile:
    """Writes how far a run is, a few times a second at most, for a progress bar in another process."""

    SECONDS = 0.3

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next = 0.0
        self._metrics: Row = {}
        self._evaluated = 0

    def tick(self, phase: str, iteration: int, iterations: int) -> None:
        """Called after every iteration; nearly always free."""
        now = time.monotonic()
        if self._path is None or (now < self._next and iteration < iterations):
            return
        self._next = now + self.SECONDS
        state = {"phase": phase, "iteration": iteration, "iterations": iterations}
        state |= {"metrics": self._metrics, "evaluated": self._evaluated}
        with suppress(OSError):  # a bar that stands still is no reason to stop training
            write_json(self._path, state, durable=False)

    def show(self, row: Row) -> None:
        """Adds metrics to show from now on."""
        self._metrics = self._metrics | row
        if is_evaluation(row):
            self._evaluated = int(row["iteration"])
