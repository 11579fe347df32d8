"""The protocol between a run and its records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Row = dict[str, float]
"""Metrics by name, with `iteration` (completed so far) and `time` (milliseconds since 1970)."""


class Tracker(Protocol):
    """Takes what a run reports; every call returns at once and none raises."""

    def log(self, row: Row) -> None: ...

    def image(self, row: Row, path: Path) -> None:
        """A PNG file that belongs to the iteration of `row`."""

    def close(self) -> None:
        """After the last call; may take a few seconds to hand over what is left."""


class MemoryTracker:
    """Keeps everything, for tests and notebooks."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.images: list[Path] = []
        self.closed = False

    def log(self, row: Row) -> None:
        self.rows.append(row)

    def image(self, row: Row, path: Path) -> None:
        self.images.append(path)

    def close(self) -> None:
        self.closed = True


class Trackers:
    """Several as one; none at all on workers that do not report."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers

    def log(self, row: Row) -> None:
        for tracker in self._trackers:
            tracker.log(row)

    def image(self, row: Row, path: Path) -> None:
        for tracker in self._trackers:
            tracker.image(row, path)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()
