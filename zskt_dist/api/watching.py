"""How a caller of `transfer` watches it: a bar, reports to `on_progress`, and the wish to stop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

from zskt_dist.api.results import Progress
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.local import History

OnProgress = Callable[[Progress], object]


class Bar(Protocol):
    """What shows how far a run is."""

    def show(self, iteration: int, metrics: Row) -> None:
        """Iterations done, and the newest metrics."""

    def tick(self, phase: str, done: int, total: int) -> None:
        """How far something is that is no iteration, such as the making of the yardstick."""


class Watcher:
    """Passes the loop's reports on to the caller, and the caller's wish to stop back to the loop."""

    def __init__(self, history: History, iterations: int, on_progress: OnProgress | None, bar: Bar) -> None:
        self._history, self._iterations, self._on_progress, self._bar = history, iterations, on_progress, bar
        self._told = 0
        self.done = 0
        self.elapsed: Callable[[], float] = float
        self._metrics: Row = {}

    def tick(self, phase: str, iteration: int, iterations: int) -> None:
        self.done = iteration
        self._bar.show(iteration, self._metrics)

    def show(self, row: Row) -> None:
        self._metrics = self._metrics | row

    def asks_to_stop(self) -> bool:
        """Calls `on_progress` for a new row of the history; True if the caller wants to stop."""
        row = self._history.rows[-1] if self._history.rows else {"iteration": 0}
        if self._on_progress is None or row["iteration"] == self._told:
            return False
        self._told = int(row["iteration"])
        metrics = {name: value for name, value in row.items() if name not in ("iteration", "time")}
        try:
            return self._on_progress(Progress(self._told, self._iterations, metrics, self.elapsed())) is False
        except (StopIteration, KeyboardInterrupt):
            return True


class _NoBar:
    def show(self, iteration: int, metrics: Row) -> None:
        pass

    def tick(self, phase: str, done: int, total: int) -> None:
        pass


@contextmanager
def progress_bar(iterations: int, *, shown: bool) -> Iterator[Bar]:
    """Yields a bar, in terminals and notebooks where `rich` is installed."""
    if not shown or find_spec("rich") is None:
        yield _NoBar()
        return
    from rich.console import Console

    from zskt_dist.launch.progress import new_bar, note_of

    bar = new_bar(Console(stderr=True))
    row = bar.add_task("student", total=iterations, note="")

    class Shown:
        def show(self, iteration: int, metrics: Row) -> None:
            bar.update(row, completed=iteration, note=note_of(metrics))

        def tick(self, phase: str, done: int, total: int) -> None:
            bar.update(row, note=f"{phase}: {done} of {total}")

    with bar:
        yield Shown()
