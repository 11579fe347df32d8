"""What is known of trials outlives the driver, as long as their runs are there."""

import shutil
from pathlib import Path

import pytest

from tests.sweep.test_space import ONE, _write
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.mirror import Mirror
from zskt_dist.sweep.space import Trial, load_sweep
from zskt_dist.sweep.states import States
from zskt_dist.tasks.stages import run_directory


def _trials(folder: Path, runs_dir: str, seeds: str = "0, 1, 2") -> list[Trial]:
    return load_sweep(_write(folder, ONE + f"  seed: {{grid: [{seeds}]}}\n"), [f"runs_dir={runs_dir}"])[1]


def _finish(path: Path, trials: list[Trial]) -> RunDirectory:
    """The run of the first trial, which `trials.json` says is finished, with a score."""
    directory = run_directory(trials[0].config, "train")
    directory.finish({"status": "finished"})
    directory.mirror.push()
    states = States(path, trials)
    state = states[trials[0]]
    state.state, state.score, state.starts = "finished", 0.5, 1
    states.write()
    return directory


def test_states_outlive_the_driver_and_follow_a_changed_space(tmp_path: Path) -> None:
    runs_dir, path = str(tmp_path / "runs"), tmp_path / "trials.json"
    _finish(path, _trials(tmp_path, runs_dir))
    changed = _trials(tmp_path, runs_dir, "0, 3, 2")
    again = States(path, changed)
    assert [state.state for state in again] == ["finished", "waiting", "waiting"]
    assert again[changed[0]].score == 0.5
    assert again.left() == changed[1:]


def test_a_finished_trial_whose_run_is_gone_is_redone(tmp_path: Path) -> None:
    trials, path = _trials(tmp_path, str(tmp_path / "runs")), tmp_path / "trials.json"
    shutil.rmtree(_finish(path, trials).path)
    again = States(path, trials)
    assert again.left() == trials
    state = again[trials[0]]
    assert (state.state, state.score, state.starts) == ("waiting", None, 0)


def test_a_store_is_asked_for_runs_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "here"))
    trials, path = _trials(tmp_path, f"file://{tmp_path}/shared"), tmp_path / "trials.json"
    directory = _finish(path, trials)
    with monkeypatch.context() as patch:
        patch.delattr(Mirror, "pull")
        assert States(path, trials).left() == trials[1:], "what is here is asked of nobody"
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "elsewhere"))
    assert States(path, trials).left() == trials[1:]
    shutil.rmtree(tmp_path / "shared" / "digits" / directory.path.name)
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "new"))
    assert States(path, trials).left() == trials
