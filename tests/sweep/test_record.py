"""A sweep in MLflow: how its run and those of its trials end, whatever became of their processes."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.support.stores import new_store
from tests.sweep.test_space import ONE, _write
from zskt_dist.files import write_json
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.record import close_parent, open_parent
from zskt_dist.sweep.space import Trial, load_sweep
from zskt_dist.tracking.mlflow.runs import open_run
from zskt_dist.tracking.mlflow.store import RunAddress

STATES = ["failed", "stopped", "finished", "running", "waiting"]
SPACE = ONE + "  seed: {grid: [0, 1, 2, 3, 4]}\n"


def _close(directory: RunDirectory, parent: RunAddress, trials: list[Trial]) -> None:
    result: Any = {"best": None, "select_by": "label_free_score", "name": "sweep-one", "status": "partial"}
    result |= {"trials": len(trials), "finished": 1, "failed": 1, "sweep": {"title": "one"}}
    close_parent(parent, trials, [{"score": None, "iteration": 1}] * len(trials), result, directory)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path)


def test_runs_end_as_their_trials_did(tmp_path: Path, uri: str) -> None:
    words = [f"runs_dir={tmp_path}/runs", f"tracking.uri={uri}"]
    sweep, trials = load_sweep(_write(tmp_path, SPACE), words)
    directory = RunDirectory(tmp_path / "runs/digits/sweep-one")
    parent = open_parent(directory, sweep, trials[0].config)
    assert parent
    children = [open_run(uri, "digits", trial.hash, params={}, tags={}) for trial in trials]
    for trial, child, state in zip(trials, children, STATES, strict=True):
        write_json(trial.run.tracking, child._asdict())
        trial.state = state
    trials[2].run.finish({"status": "finished"})
    client = MlflowClient(uri)
    client.set_terminated(children[1].run_id, "KILLED")  # it was asked to stop, as for a continuation
    client.set_terminated(children[2].run_id, "FINISHED")
    _close(directory, parent, trials)
    ended = [client.get_run(child.run_id) for child in children]
    assert [run.info.status for run in ended] == ["FAILED", "FINISHED", "FINISHED", "KILLED", "RUNNING"]
    assert [run.data.tags["state"] for run in ended] == STATES
    run = client.get_run(parent.run_id)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "partial"), "a failed trial stops no sweep"
    directory.stop.touch()
    _close(directory, parent, trials)
    assert client.get_run(parent.run_id).info.status == "KILLED"


def test_the_space_in_the_record_is_the_newest(tmp_path: Path, uri: str) -> None:
    directory = RunDirectory(tmp_path / "runs/digits/sweep-one")
    for seeds in ("[0, 1]", "[0, 1, 2]"):
        path = _write(tmp_path, ONE + f"  seed: {{grid: {seeds}}}\n")
        sweep, trials = load_sweep(path, [f"runs_dir={tmp_path}/runs", f"tracking.uri={uri}"])
        parent = open_parent(directory, sweep, trials[0].config)
        assert parent
        _close(directory, parent, trials)
    client = MlflowClient(uri)
    assert client.get_run(parent.run_id).data.params == {}
    text = Path(client.download_artifacts(parent.run_id, "sweep.yaml", str(tmp_path))).read_text()
    assert "- 2\n" in text
