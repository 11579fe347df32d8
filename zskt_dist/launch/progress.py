"""Showing how far a run is: a bar on a terminal, a line per evaluation in a log."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from zskt_dist.files import read_json

_POLL_SECONDS = 0.3


@contextmanager
def watching(path: Path, console: Console) -> Iterator[None]:
    """Shows `progress.json` while workers, here or elsewhere, write it; removes it at the end."""
    path.unlink(missing_ok=True)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(path, console, ended), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def new_bar(console: Console) -> Progress:
    """Shows nothing in a log. Its tasks have a field `note`, the text at the end of the line."""
    return Progress(
        TextColumn("{task.description:8}"),
        BarColumn(bar_width=12),  # leaves room for the note in 80 columns
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=console,
        expand=True,  # and on narrow terminals the note is cut, not the count
        disable=not (console.is_terminal or console.is_jupyter),
    )


def _watch(path: Path, console: Console, ended: threading.Event) -> None:
    bar = new_bar(console)
    phases: dict[str, TaskID] = {}
    said: set[tuple[str, int]] = set()
    with bar:
        last = False
        while not last:
            last = ended.wait(_POLL_SECONDS)  # and once more after the end, for the last state
            state = read_json(path)
            if not state:
                continue
            phase, iterations, note = state["phase"], state["iterations"], note_of(state["metrics"])
            if phase not in phases:
                phases[phase] = bar.add_task(phase, total=iterations, note="")
            bar.update(phases[phase], completed=state["iteration"], note=note)
            evaluation = (phase, state["evaluated"])
            if state["evaluated"] and evaluation not in said and not console.is_terminal:
                said.add(evaluation)
                console.print(f"{phase} {state['evaluated']}/{iterations}: {note}", soft_wrap=True, highlight=False)


def note_of(metrics: Mapping[str, float]) -> str:
    """The few metrics that are shown while a run trains."""
    shown = (
        ("accuracy", ".4f"),
        ("agreement", ".4f"),
        ("label_free_score", ".4f"),
        ("kl", ".3g"),
        ("loss", ".3g"),
        ("iterations_per_second", ".3g"),
    )
    return "  ".join(f"{name} {metrics[name]:{form}}" for name, form in shown if name in metrics)
