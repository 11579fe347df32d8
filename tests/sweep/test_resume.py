"""A repeated sweep: trials report again what they did before, ASHA's rungs are as they were, nothing trains twice."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from tests.support.configs import tiny_config
from zskt_dist.files import try_lock
from zskt_dist.launch import driver
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.driver import Rungs
from zskt_dist.sweep.trial import TrialRun
from zskt_dist.tasks.stages import run_directory
from zskt_dist.tracking.local import History


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are executed; each finishes at once."""
    seen: list[str] = []

    def execute(command: str, config: Any, **_: Any) -> dict[str, Any]:
        seen.append(run_directory(config, command).path.name)
        return {"iterations": config.iterations, "estimates": {"label_free_score": 0.9}}

    monkeypatch.setattr(driver, "execute", execute)
    return seen


def _run(folder: Path, scores: dict[int, float], *overrides: str) -> RunDirectory:
    """The directory of a run that was evaluated at some iterations."""
    directory = run_directory(tiny_config(folder, *overrides), "train")
    history = History(directory.history)
    for iteration, score in scores.items():
        history.log({"iteration": iteration - 1, "time": 0, "student_loss": 1.0})
        history.log({"iteration": iteration, "time": 0, "accuracy": 0.5, "label_free_score": score})
    history.write()
    # What the interrupted start has shown last: newer than its last checkpoint.
    progress = {"phase": "student", "iteration": 9, "evaluated": 4, "metrics": {"label_free_score": 0.4}}
    directory.progress.write_text(json.dumps(progress))
    return directory


def _started(folder: Path, *overrides: str, ended: str | None = None) -> TrialRun:
    """A trainable as Tune's actor would hold it, without the actor."""
    trainable = object.__new__(TrialRun)
    order = {
        "number": 0,
        "config": tiny_config(folder, *overrides).model_dump(mode="json"),
        "evaluate": None,
        "ended": ended,
        "sweep": "sweep-one",
        "folder": str(folder / "nowhere"),
        "stop": str(folder / "stop"),
        "one_machine": True,
        "cores": 1,
        "verbose": 0,
    }
    trainable.setup({"trial": order})
    return trainable


def _hold(directory: RunDirectory) -> IO[str]:
    held = try_lock(directory.path.with_name(f".{directory.path.name}.lock"))
    assert held
    return held


def test_a_trial_waits_for_the_lock_of_the_process_before_it(tmp_path: Path, runs: list[str]) -> None:
    directory = run_directory(tiny_config(tmp_path), "train")
    with _hold(directory):
        trainable = _started(tmp_path)
        trainable.thread.join(timeout=1)
        assert trainable.thread.is_alive()
        assert runs == []
    assert _reports(trainable)[-1]["state"] == "finished"


def test_a_trial_that_is_stopped_while_it_waits_stops_no_other_command(tmp_path: Path, runs: list[str]) -> None:
    directory = _run(tmp_path, {2: 0.2})
    with _hold(directory):
        trainable = _started(tmp_path)
        trainable.cleanup()
    assert not directory.stop.exists()
    assert trainable.outcome["state"] == "interrupted"
    assert runs == []


def test_a_run_that_is_not_given_up_fails_its_trial(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zskt_dist.sweep.trial._LOCK_SECONDS", 0.0)
    with _hold(run_directory(tiny_config(tmp_path), "train")):
        outcome = _reports(_started(tmp_path))[-1]
    assert outcome["state"] == "failed"
    assert "another command is working on this run" in outcome["message"]


def _reports(trainable: TrialRun) -> list[dict[str, Any]]:
    rows = []
    while not rows or not rows[-1].get("done"):
        rows.append(trainable.step())
    return rows


@pytest.mark.parametrize("ended", ["stopped", "finished"])
def test_a_trial_that_has_ended_reports_again_and_does_not_train(tmp_path: Path, runs: list[str], ended: str) -> None:
    _run(tmp_path, {2: 0.2, 4: 0.4})
    *rows, last = _reports(_started(tmp_path, ended=ended))
    assert [(row["iteration"], row["label_free_score"], row["again"]) for row in rows] == [
        (2, 0.2, True),
        (4, 0.4, True),
    ]
    assert last == {"state": ended, "done": True}
    assert runs == []


def test_a_trial_that_goes_on_reports_again_and_then_trains(tmp_path: Path, runs: list[str]) -> None:
    directory = _run(tmp_path, {2: 0.2, 4: 0.4})
    *rows, last = _reports(_started(tmp_path))
    assert [row["iteration"] for row in rows] == [2, 4]
    assert last == {"state": "finished", "iteration": 10, "label_free_score": 0.9, "done": True}
    assert runs == [directory.path.name]


def test_rungs_are_filled_as_before_and_nothing_stops_for_what_is_reported_again(
    tmp_path: Path, runs: list[str]
) -> None:
    """Three trials with rungs at 2 and 4: the finished one must stand in both, a new one is compared with all."""
    histories = {"0": {2: 0.9, 4: 0.95}, "1": {2: 0.8, 4: 0.85}, "2": {2: 0.1}}
    rungs = Rungs(time_attr="iteration", metric="label_free_score", mode="max", max_t=11, grace_period=2)
    rungs._brackets[0]._rungs = [(4, {}), (2, {})]
    for number, scores in histories.items():
        _run(tmp_path, scores, f"seed={number}")
        trial: Any = SimpleNamespace(trial_id=number)
        rungs.on_trial_add(None, trial)
        for row in _reports(_started(tmp_path, f"seed={number}", ended="stopped")):
            assert rungs.on_trial_result(None, trial, row) == "CONTINUE"
    assert [(at, recorded) for at, recorded in rungs._brackets[0]._rungs] == [
        (4, {"0": 0.95, "1": 0.85}),
        (2, {"0": 0.9, "1": 0.8, "2": 0.1}),
    ]
    new: Any = SimpleNamespace(trial_id="3")
    rungs.on_trial_add(None, new)
    assert rungs.on_trial_result(None, new, {"iteration": 2, "label_free_score": 0.3}) == "STOP"
    assert runs == []
