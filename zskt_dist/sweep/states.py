"""What has become of each trial, in a file that survives the driver."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zskt_dist.files import read_json, write_json
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.space import Trial
from zskt_dist.tasks.stages import run_directory

ENDED = ("finished", "stopped")
"""States that a repeated command leaves alone, where `evaluate` is as it was; all others are tried again."""


@dataclass
class State:
    """One line of `trials.json`."""

    number: int
    hash: str
    settings: dict[str, Any]
    run: str
    """Name of the run directory, beside the sweep's own."""
    state: str = "waiting"
    """waiting, running, finished, stopped (early, by the scheduler), interrupted, failed."""
    iteration: int = 0
    score: float | None = None
    """Its label-free score at the last evaluation."""
    message: str = ""
    starts: int = 0
    """How often it has been started."""
    evaluated: list[str] | None = None
    """The settings of `evaluate` with which it was finished."""


class States:
    """The states of all trials, written after every change.

    Args:
        written: Called after each time.
    """

    def __init__(self, path: Path, trials: list[Trial], written: Callable[[], None] = lambda: None) -> None:
        self._path, self._written = path, written
        self._trials = trials
        known = {entry["hash"]: entry for entry in read_json(path) or []}
        self._states: dict[str, State] = {}
        for trial in trials:
            run, before = run_directory(trial.config, "train"), known.get(trial.hash, {})
            self._states[trial.hash] = state = State(trial.number, trial.hash, trial.settings, run.path.name)
            if before.get("state") != "finished" or _is_finished(run):  # else it is done again
                for name in ("state", "iteration", "score", "message", "starts", "evaluated"):
                    setattr(state, name, before.get(name, getattr(state, name)))

    def __getitem__(self, trial: Trial) -> State:
        return self._states[trial.hash]

    def __iter__(self) -> Any:
        return iter(self._states.values())

    def ended(self, trial: Trial) -> bool:
        """Whether nothing is left to do for it; a finished run that is to be evaluated otherwise is evaluated again."""
        state = self[trial]
        measured = state.state == "stopped" or trial.evaluate in (None, state.evaluated)
        return state.state in ENDED and measured

    def left(self) -> list[Trial]:
        """Trials that a repeated command goes on with."""
        return [trial for trial in self._trials if not self.ended(trial)]

    def write(self) -> None:
        write_json(self._path, [asdict(state) for state in self])
        self._written()

    def count(self, *states: str) -> int:
        return sum(state.state in states for state in self)


def _is_finished(run: RunDirectory) -> bool:
    """Whether its directory still says so; a store is asked only for what is not on this machine."""
    if run.finished() is None:
        run.mirror.pull(checkpoints=False)
    return run.finished() is not None
