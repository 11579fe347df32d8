"""What becomes of trials, told by Tune's calls in the order in which Tune makes them."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.sweep.test_space import ONE, _write
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.space import Trial, load_sweep
from zskt_dist.sweep.states import read_states
from zskt_dist.sweep.watch import Watch


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return load_sweep(_write(tmp_path, ONE + "  seed: {grid: [0, 1]}\n"), [f"runs_dir={tmp_path / 'runs'}"])[1]


def _watch(folder: Path, trials: list[Trial]) -> Watch:
    return Watch(trials, RunDirectory(folder), Console(quiet=True))


def _tell(watch: Watch, event: str, number: int = 0, **more: Any) -> None:
    told: Any = SimpleNamespace(config={"trial": {"number": number}})
    getattr(watch, f"on_trial_{event}")(iteration=1, trials=[told], trial=told, **more)


def test_what_the_scheduler_ends_is_stopped_and_says_so(tmp_path: Path, trials: list[Trial]) -> None:
    watch = _watch(tmp_path, trials)
    _tell(watch, "start")
    _tell(watch, "result", result={"iteration": 2, "score": 0.5, "done": False})
    _tell(watch, "result", result={"iteration": 4, "score": 0.4, "done": True})
    _tell(watch, "complete")
    _tell(watch, "error")  # its process was lost while it left
    assert (trials[0].state, trials[0].score) == ("stopped", 0.4)
    assert trials[0].message == "by the scheduler after 4 iterations"
    assert json.loads((tmp_path / "trials.json").read_text())[0]["state"] == "stopped"


def test_a_trial_is_failed_only_when_tune_gives_it_up(tmp_path: Path, trials: list[Trial]) -> None:
    watch = _watch(tmp_path, trials)
    for starts in (1, 2):
        _tell(watch, "start")
        _tell(watch, "recover")
        assert (trials[0].state, trials[0].starts) == ("running", starts)
    _tell(watch, "start")
    _tell(watch, "error")
    assert trials[0].state == "failed"
    assert "its process ended unexpectedly" in trials[0].message


def test_a_changed_evaluation_is_done_again(tmp_path: Path, trials: list[Trial]) -> None:
    """Of a finished run; a stopped one has no student to be evaluated."""
    trials[1].run.finish({"status": "finished"})
    trials[0].state = "stopped"

    def left(evaluate: list[str] | None) -> list[Trial]:
        """Trials that the sweep goes on with, with these settings of `evaluate`."""
        again = [replace(trial, evaluate=evaluate, state="waiting", evaluated=None) for trial in trials]
        read_states(RunDirectory(tmp_path), again)
        return [trial for trial in again if not trial.ended]

    def finish(evaluate: list[str]) -> None:
        again = [replace(trial, evaluate=evaluate) for trial in trials]
        watch = _watch(tmp_path, again)
        _tell(watch, "start", 1)
        assert again[1].state == "running"
        _tell(watch, "result", 1, result={"state": "finished", "iteration": 5, "done": True})

    finish(["transitions.images=5"])
    assert left(["transitions.images=5"]) == []
    assert [trial.number for trial in left(["transitions.images=6"])] == [1]
    finish(["transitions.images=6"])
    assert left(["transitions.images=6"]) == []
    assert left(None) == [], "what was measured once more is no loss"


def test_a_log_shows_what_runs_after_half_a_minute_of_silence(tmp_path: Path, trials: list[Trial]) -> None:
    console = Console(file=io.StringIO(), width=80)
    watch = Watch(trials, RunDirectory(tmp_path), console)
    _tell(watch, "start")
    _tell(watch, "start", 1)
    _tell(watch, "result", 1, result={"iteration": 4, "score": 0.5, "state": "finished", "done": True})
    _tell(watch, "result", result={"iteration": 2, "score": 0.25, "done": False})
    began = time.monotonic()
    for seconds in (20, 40, 60, 80):
        watch.show_life(began + seconds)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[3:] == ["trials 1/2; running: #0 2: score 0.2500"] * 2
