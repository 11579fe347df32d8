"""The protocol between a run and its records."""

from pathlib import Path
from typing import Protocol

Row = dict[str, float]
"""Metrics by name, with `iteration` (completed so far) and `time` (milliseconds since 1970)."""


def is_evaluation(row: Row) -> bool:
    """True if a network was evaluated: with an accuracy, or where there are no test images with a score at least."""
    return "accuracy" in row or "label_free_score" in row


class Tracker(Protocol):
    """Takes what a run reports; every call returns at once and none raises."""

    def log_row(self, row: Row) -> None: ...

    def log_image(self, iteration: int, path: Path) -> None:
        """A PNG file of what the generator draws after so many iterations."""

    def close(self) -> None:
        """After the last call; may take a few seconds to hand over what is left."""


class NullTracker:
    """Keeps nothing: on workers that do not report, and where nobody listens."""

    def log_row(self, row: Row) -> None:
        pass

    def log_image(self, iteration: int, path: Path) -> None:
        pass

    def close(self) -> None:
        pass
