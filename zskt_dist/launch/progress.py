"""Shows how far a run is: by a bar on a terminal; in a log by the plan and then a line now and then."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
LINE_SECONDS = 30.0
"""Least time between two lines of a log without an evaluation, and the most without any."""
_SETTLING_SECONDS = 3.0
"""Time after the first report from which on the measured speed is reliable."""


def announce(command: str, plan: Sequence[tuple[str, str]], console: Console) -> None:
    """Prints the first lines of a log: the plan in short, and where the run lies.

    Args:
        plan: Topics, each with a line of text, from `preflight.describe`.
    """
    if _has_bar(console):
        return
    about = dict(plan)
    task = next((about[topic] for topic in ("transfer", "inversion", "optimizer") if topic in about), None)
    roles = [role for role in ("teacher", "student") if role in about]
    lines = {
        "task": f"{command}: {task}" if task else command,
        " -> ".join(roles): " -> ".join(about[role] for role in roles),
        **{topic: about.get(topic, "") for topic in ("data", "launch", "run directory")},
    }
    for topic, text in lines.items():
        if text:
            _print(f"{topic:18} {text}", console)


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
    """A progress bar, which shows nothing in a log. Its tasks have a field `note`, the text at the end of the line."""
    return Progress(
        TextColumn("{task.description:8}"),
        BarColumn(bar_width=12),  # leaves room for the note in 80 columns
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=console,
        expand=True,  # on narrow terminals the note is cut, not the count
        disable=not _has_bar(console),
    )


def _has_bar(console: Console) -> bool:
    return console.is_terminal or console.is_jupyter


def _print(line: str, console: Console) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _watch(path: Path, console: Console, ended: threading.Event) -> None:
    bar, log = new_bar(console), ProgressLog(time.monotonic())
    phases: dict[str, TaskID] = {}
    with bar:
        last = False
        while not last:
            last = ended.wait(_POLL_SECONDS)  # and once more after the end, for the last state
            state = read_json(path)
            if bar.disable:
                if line := log.line_or_sign(state, time.monotonic()):
                    _print(line, console)
            elif state:
                phase = state["phase"]
                if phase not in phases:
                    phases[phase] = bar.add_task(phase, total=state["iterations"], note="")
                bar.update(phases[phase], completed=state["iteration"], note=note_of(state["metrics"]))


@dataclass
class _Phase:
    began: float
    """Moment of the start, in seconds as all moments here."""
    iteration: int = 0
    first_report: tuple[int, float] | None = None
    """Iteration and moment from which on the speed is measured: time before it includes compiling and loading."""
    evaluated: int = 0
    printed: float | None = None
    """Iteration of the last metrics that were printed."""
    printed_at: float | None = None
    """Moment of the last line with the time left."""
    counted: tuple[int, float] | None = None
    """Iteration and moment from which on a phase without metrics is counted; a resumed one begins in the middle."""
    counted_at: float = 0.0
    """Moment of the last line without metrics."""


class ProgressLog:
    """The lines of a log: one for each evaluation, and at most every half minute one with the newest metrics.

    The first line with metrics comes as soon as the remaining time can be estimated.

    Args:
        began: Moment of the start, in seconds.
    """

    def __init__(self, began: float = 0.0) -> None:
        self._began = self._shown_at = began
        self._phases: dict[str, _Phase] = {}

    def line_or_sign(self, state: Mapping[str, Any] | None, now: float) -> str | None:
        """As `line`, and after half a minute without any line a sign of life.

        Args:
            state: None while nothing is known of the workers: they start, or write on another machine.
        """
        line = self.line(state, now) if state else None
        if line is None and now - self._shown_at >= LINE_SECONDS:
            line = self._sign(state, now)
        if line is not None:
            self._shown_at = now
        return line

    def _sign(self, state: Mapping[str, Any] | None, now: float) -> str:
        if not state:
            return f"no iteration is known here yet: {duration(now - self._began)} elapsed"
        phase = self._phases[state["phase"]]
        phase.counted_at = now
        return _count(phase, state, now)

    def line(self, state: Mapping[str, Any], now: float) -> str | None:
        """The line to print for a `progress.json` read at the moment `now` in seconds; None where nothing is new."""
        phase = self._phases.setdefault(state["phase"], _Phase(now))
        if state["iteration"] < phase.iteration:  # failed workers went back to a checkpoint
            phase.first_report = None
        phase.iteration, reported = state["iteration"], state["metrics"].get("iteration")
        if reported is not None and phase.first_report is None:
            phase.first_report = (phase.iteration, now)
        if not state["metrics"]:
            return _counted(phase, state, now)
        left = _seconds_left(phase, state["iterations"], now)
        is_due = phase.printed_at is None or now - phase.printed_at >= LINE_SECONDS
        if state["evaluated"] > phase.evaluated:
            at = phase.evaluated = state["evaluated"]
        elif left is not None and is_due and reported != phase.printed:
            at = reported
        else:
            return None
        phase.printed = reported
        total, times = state["iterations"], [f"{duration(now - phase.began)} elapsed"]
        if left is not None:
            phase.printed_at = now
            times += [f"about {duration(left)} left"] if left else []
        words = [note_of(state["metrics"]), ", ".join(times)]
        return f"{state['phase']} {at}/{total} ({at / total:.1%}): {'  '.join(filter(None, words))}"


def _counted(phase: _Phase, state: Mapping[str, Any], now: float) -> str | None:
    """A line each half minute while nothing is measured, as where the first images are made."""
    if phase.counted is None:
        phase.counted = phase.iteration, now
    first, moment = phase.counted
    if phase.iteration <= first or now - max(moment, phase.counted_at) < LINE_SECONDS:
        return None
    phase.counted_at = now
    return _count(phase, state, now)


def _count(phase: _Phase, state: Mapping[str, Any], now: float) -> str:
    """How far a phase is, without metrics."""
    done, total = phase.iteration, state["iterations"]
    times = [f"{duration(now - phase.began)} elapsed"]
    first, moment = phase.counted or (done, now)
    if done == total:
        times.insert(0, "finishing")
    elif done > first:
        times.append(f"about {duration((total - done) * (now - moment) / (done - first))} left")
    return f"{state['phase']} {done}/{total} ({done / total:.1%}): {', '.join(times)}"


def _seconds_left(phase: _Phase, iterations: int, now: float) -> float | None:
    """Remaining time by the mean speed since the first report, evaluations included; None where not known yet."""
    if phase.first_report is None:
        return None
    iteration, moment = phase.first_report
    done = phase.iteration - iteration
    if done <= 0 or now - moment < _SETTLING_SECONDS:
        return None
    return (iterations - phase.iteration) * (now - moment) / done


def duration(seconds: float) -> str:
    """`14 s`, `12 min` or `2 h 46 min`."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def note_of(metrics: Mapping[str, float]) -> str:
    """The few metrics that are shown while a run trains."""
    shown = (
        ("accuracy", ".4f"),
        ("agreement", ".4f"),
        ("yardstick_agreement", ".4f"),
        ("label_free_score", ".4f"),
        ("kl", ".3g"),
        ("loss", ".3g"),
        ("iterations_per_second", ".3g"),
    )
    return "  ".join(f"{name} {metrics[name]:{form}}" for name, form in shown if name in metrics)
