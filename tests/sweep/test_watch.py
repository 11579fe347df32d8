"""What becomes of trials, told by Tune's calls in the order in which Tune makes them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.sweep.test_space import ONE, _write
from zskt_dist.sweep.space import Trial, load_sweep
from zskt_dist.sweep.states import States
from zskt_dist.sweep.watch import Watch
from zskt_dist.tasks.stages import run_directory


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return load_sweep(_write(tmp_path, ONE + "  seed: {grid: [0, 1]}\n"), [f"runs_dir={tmp_path / 'runs'}"])[1]


def _watch(folder: Path, trials: list[Trial], **first: Any) -> tuple[Watch, States]:
    """With the state of the first trial changed as told."""
    states = States(folder / "trials.json", trials)
    for name, value in first.items():
        setattr(states[trials[0]], name, value)
    states.write()
    return Watch({trial.number: trial for trial in trials}, states, Console(quiet=True)), states


def _tell(watch: Watch, event: str, number: int = 0, **more: Any) -> None:
    told: Any = SimpleNamespace(config={"trial": {"number": number}})
    getattr(watch, f"on_trial_{event}")(iteration=1, trials=[told], trial=told, **more)


def test_what_the_scheduler_ends_is_stopped_and_says_so(tmp_path: Path, trials: list[Trial]) -> None:
    watch, states = _watch(tmp_path, trials)
    _tell(watch, "start")
    _tell(watch, "result", result={"iteration": 2, "label_free_score": 0.5, "done": False})
    _tell(watch, "result", result={"iteration": 4, "label_free_score": 0.4, "done": True})
    _tell(watch, "complete")
    state = states[trials[0]]
    assert (state.state, state.score) == ("stopped", 0.4)
    assert state.message == "by the scheduler after 4 iterations"
    assert json.loads((tmp_path / "trials.json").read_text())[0]["state"] == "stopped"


def test_a_trial_is_failed_only_when_tune_gives_it_up(tmp_path: Path, trials: list[Trial]) -> None:
    watch, states = _watch(tmp_path, trials)
    for starts in (1, 2):
        _tell(watch, "start")
        _tell(watch, "recover")
        assert (states[trials[0]].state, states[trials[0]].starts) == ("running", starts)
    _tell(watch, "start")
    _tell(watch, "error")
    assert states[trials[0]].state == "failed"
    assert "its process ended unexpectedly" in states[trials[0]].message


def test_a_changed_evaluation_is_done_again(tmp_path: Path, trials: list[Trial]) -> None:
    """Of a finished run; a stopped one has no student to be evaluated."""
    run_directory(trials[1].config, "train").finish({"status": "finished"})
    trials = [replace(trial, evaluate=["transitions.images=5"]) for trial in trials]
    watch, _ = _watch(tmp_path, trials, state="stopped")
    _tell(watch, "start", 1)
    _tell(watch, "result", 1, result={"state": "finished", "iteration": 5, "done": True})
    assert States(tmp_path / "trials.json", trials).left() == []
    otherwise = [replace(trial, evaluate=["transitions.images=6"]) for trial in trials]
    again = States(tmp_path / "trials.json", otherwise)
    assert again.left() == [otherwise[1]]
    watch = Watch({trial.number: trial for trial in otherwise}, again, Console(quiet=True))
    _tell(watch, "start", 1)
    assert again[otherwise[1]].state == "running"
    _tell(watch, "result", 1, result={"state": "finished", "iteration": 5, "done": True})
    assert States(tmp_path / "trials.json", otherwise).left() == []
    without = [replace(trial, evaluate=None) for trial in trials]
    assert States(tmp_path / "trials.json", without).left() == [], "what was measured once more is no loss"


@pytest.mark.parametrize("ended", ["stopped", "finished"])
def test_what_only_reports_again_stays_what_it_was(tmp_path: Path, trials: list[Trial], ended: str) -> None:
    watch, states = _watch(tmp_path, trials, state=ended, iteration=4, score=0.4, message="as before", starts=1)
    _tell(watch, "start")
    _tell(watch, "result", result={"iteration": 2, "label_free_score": 0.2, "again": True, "done": False})
    _tell(watch, "result", result={"state": ended, "done": True})
    state = states[trials[0]]
    assert (state.state, state.iteration, state.score) == (ended, 4, 0.4)
    assert (state.message, state.starts) == ("as before", 1)
