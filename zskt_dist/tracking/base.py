"""The protocol between a run and its records."""

from pathlib import Path
from typing import Protocol

Row = dict[str, float]
"""Metrics by name, with `iteration` (completed so far) and `time` (milliseconds since 1970)."""


def is_evaluation(row: Row) -> bool:
    """True if the row has an evaluation: an accuracy, or without test images a label-free score."""
    return any(name in row for name in ("accuracy", "yardstick_agreement", "label_free_score", "noise_agreement"))


class Tracker(Protocol):
    """Records what a run reports; every call returns at once, and none raises."""

    def log_row(self, row: Row) -> None: ...

    def log_image(self, iteration: int, path: Path) -> None:
        """Records a PNG file with the generator's images after so many iterations."""

    def close(self) -> None:
        """Called last; may take a few seconds to send the remaining rows."""


class NullTracker:
    """Records nothing: for workers that do not report, and for runs without records."""

    def log_row(self, row: Row) -> None:
        pass

    def log_image(self, iteration: int, path: Path) -> None:
        pass

    def close(self) -> None:
        pass
