"""What is known of trials outlives the driver, as long as their runs are there."""

import shutil
from pathlib import Path

import pytest

from tests.sweep.test_space import ONE, _write
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.mirror import Mirror
from zskt_dist.sweep.space import Trial, load_sweep
from zskt_dist.sweep.states import read_states, write_states


def _trials(folder: Path, runs_dir: str, seeds: str = "0, 1, 2") -> list[Trial]:
    return load_sweep(_write(folder, ONE + f"  seed: {{grid: [{seeds}]}}\n"), [f"runs_dir={runs_dir}"])[1]


def _finish(sweep: RunDirectory, trials: list[Trial]) -> RunDirectory:
    """The run of the first trial, which `trials.json` says is finished, with a score."""
    first = trials[0]
    first.run.finish({"status": "finished"})
    first.run.mirror.push()
    first.state, first.score, first.starts = "finished", 0.5, 1
    write_states(sweep, trials)
    return first.run


def _left(sweep: RunDirectory, trials: list[Trial]) -> list[int]:
    """Numbers of the trials that the same command goes on with."""
    read_states(sweep, trials)
    return [trial.number for trial in trials if not trial.ended]


def test_states_outlive_the_driver_and_follow_a_changed_space(tmp_path: Path) -> None:
    runs_dir, sweep = str(tmp_path / "runs"), RunDirectory(tmp_path)
    _finish(sweep, _trials(tmp_path, runs_dir))
    changed = _trials(tmp_path, runs_dir, "0, 3, 2")
    assert _left(sweep, changed) == [1, 2]
    assert [trial.state for trial in changed] == ["finished", "waiting", "waiting"]
    assert changed[0].score == 0.5


def test_a_finished_trial_whose_run_is_gone_is_redone(tmp_path: Path) -> None:
    runs_dir, sweep = str(tmp_path / "runs"), RunDirectory(tmp_path)
    shutil.rmtree(_finish(sweep, _trials(tmp_path, runs_dir)).path)
    again = _trials(tmp_path, runs_dir)
    assert _left(sweep, again) == [0, 1, 2]
    assert (again[0].state, again[0].score, again[0].starts) == ("waiting", None, 0)


def test_a_store_is_asked_for_runs_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "here"))
    runs_dir, sweep = f"file://{tmp_path}/shared", RunDirectory(tmp_path)
    directory = _finish(sweep, _trials(tmp_path, runs_dir))
    with monkeypatch.context() as patch:
        patch.delattr(Mirror, "pull")
        assert _left(sweep, _trials(tmp_path, runs_dir)) == [1, 2], "what is here is asked of nobody"
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "elsewhere"))
    assert _left(sweep, _trials(tmp_path, runs_dir)) == [1, 2]
    shutil.rmtree(tmp_path / "shared" / "digits" / directory.path.name)
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "new"))
    assert _left(sweep, _trials(tmp_path, runs_dir)) == [0, 1, 2]
