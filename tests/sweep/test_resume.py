"""A repeated sweep: ASHA's rungs are as they were, trials report what is new, and nothing trains twice."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from tests.support.configs import tiny_config
from tests.sweep.test_space import ONE, _write
from zskt_dist.files import try_lock
from zskt_dist.launch import driver
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.driver import Rungs, _scheduler
from zskt_dist.sweep.space import load_sweep
from zskt_dist.sweep.trial import TrialRun
from zskt_dist.tasks.stages import run_directory
from zskt_dist.tracking.local import History

SEEDS = ONE + "  seed: {grid: [0, 1, 2, 3]}\n"


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
    _evaluated(directory, scores)
    # What the interrupted start has shown last: newer than its last checkpoint.
    progress = {"phase": "student", "iteration": 9, "evaluated": 4, "metrics": {"label_free_score": 0.4}}
    directory.progress.write_text(json.dumps(progress))
    return directory


def _evaluated(directory: RunDirectory, scores: dict[int, float], name: str = "label_free_score") -> None:
    history = History(directory.history)
    for iteration, score in scores.items():
        history.log({"iteration": iteration - 1, "time": 0, "student_loss": 1.0})
        history.log({"iteration": iteration, "time": 0, name: score})
    history.write()


def _started(folder: Path, *overrides: str) -> TrialRun:
    """A trainable as Tune's actor would hold it, without the actor."""
    trainable = object.__new__(TrialRun)
    order = {
        "number": 0,
        "config": tiny_config(folder, *overrides).model_dump(mode="json"),
        "evaluate": None,
        "sweep": "sweep-one",
        "swept": [],
        "folder": str(folder / "nowhere"),
        "stop": str(folder / "stop"),
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


def test_a_trial_that_goes_on_reports_only_what_is_new(tmp_path: Path, runs: list[str]) -> None:
    """What its last start has shown, 4, it has written into its history too."""
    directory = _run(tmp_path, {2: 0.2, 4: 0.4})
    with _hold(directory):
        trainable = _started(tmp_path)
        while trainable.reported > 4:
            trainable.thread.join(timeout=0.01)
        assert trainable._evaluation() is None
        new = {"phase": "student", "iteration": 7, "evaluated": 6, "metrics": {"label_free_score": 0.6}}
        directory.progress.write_text(json.dumps(new))
        assert trainable.step() == {"label_free_score": 0.6, "score": 0.6, "iteration": 6}
    assert _reports(trainable) == [
        {"state": "finished", "iteration": 10, "label_free_score": 0.9, "score": 0.9, "done": True}
    ]
    assert runs == [directory.path.name]


@pytest.mark.parametrize("name", ["yardstick_agreement", "label_free_score", "noise_agreement"])
def test_rungs_are_filled_as_before_and_each_trial_stands_in_them_once(tmp_path: Path, name: str) -> None:
    """Rungs at 2 and 4: the best trial must stand in both, one that goes on is not recorded again, a new one compared.

    By the first rung it is 0.3 against 0.9, 0.8 and 0.1, of which half may go on: the median is 0.8.
    """
    words = [f"runs_dir={tmp_path}/runs", "iterations=6", "evaluation.every=2"]
    sweep, trials = load_sweep(_write(tmp_path, SEEDS + "scheduler: asha\ngrace: 2\nreduction: 2\n"), words)
    histories: list[dict[int, float]] = [{2: 0.9, 4: 0.95}, {2: 0.8, 4: 0.85}, {2: 0.1}, {}]
    for trial, scores in zip(trials, histories, strict=True):
        _evaluated(trial.run, scores, name)
    rungs = _scheduler(sweep, trials)
    assert isinstance(rungs, Rungs)
    assert rungs._brackets[0]._rungs == [(4, {0: 0.95, 1: 0.85}), (2, {0: 0.9, 1: 0.8, 2: 0.1})]

    def add(number: int) -> Any:
        trial = SimpleNamespace(trial_id=f"tune_{number}", config={"trial": {"number": number}})
        rungs.on_trial_add(None, trial)
        return trial

    second, new = add(1), add(3)
    assert rungs.on_trial_result(None, second, {"iteration": 6, "score": 0.1}) == "CONTINUE"
    assert rungs.on_trial_result(None, new, {"iteration": 2, "score": 0.3}) == "STOP"
    assert rungs._brackets[0]._rungs == [
        (4, {0: 0.95, "tune_1": 0.85}),
        (2, {0: 0.9, 2: 0.1, "tune_1": 0.8, "tune_3": 0.3}),
    ]
