"""A sweep in MLflow: how its run and those of its trials end, whatever became of their processes."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support.stores import new_store
from tests.sweep.test_space import ONE, _write
from zskt_dist.files import write_json
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.record import close_parent, open_parent
from zskt_dist.sweep.space import load_sweep
from zskt_dist.tracking.mlflow.runs import open_run
from zskt_dist.tracking.mlflow.store import RunAddress

STATES = {"a": "failed", "b": "stopped", "c": "finished", "d": "running", "e": "waiting"}


def _close(folder: Path, parent: RunAddress, runs: dict[str, RunDirectory], *, stopped: bool, status: str) -> None:
    result: dict[str, Any] = {"best": None, "select_by": "label_free_score", "name": "sweep-one", "status": status}
    rows = [
        {"trial": i, "config_hash": key, "state": state, "score": None, "iteration": 1}
        for i, (key, state) in enumerate(STATES.items())
    ]
    result |= {"trials": len(STATES), "failed": 1}
    close_parent(parent, pd.DataFrame(rows), runs, result, folder, stopped=stopped)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path)


def test_runs_end_as_their_trials_did(tmp_path: Path, uri: str) -> None:
    sweep, trials = load_sweep(_write(tmp_path, ONE + "  seed: {grid: [0, 1]}\n"), [f"tracking.uri={uri}"])
    directory = RunDirectory(tmp_path / "runs/digits/sweep-one")
    parent = open_parent(directory, sweep, trials[0].config)
    assert parent
    runs = {key: RunDirectory(tmp_path / "runs/digits" / key) for key in STATES}
    children = {key: open_run(uri, "digits", key, params={}, tags={}) for key in STATES}
    for key, run in runs.items():
        write_json(run.tracking, children[key]._asdict())
    runs["c"].finish({"status": "finished"})
    client = MlflowClient(uri)
    client.set_terminated(children["b"].run_id, "KILLED")  # it was asked to stop, as for a continuation
    client.set_terminated(children["c"].run_id, "FINISHED")
    _close(directory.path, parent, runs, stopped=False, status="partial")
    assert {key: client.get_run(child.run_id).info.status for key, child in children.items()} == {
        "a": "FAILED",
        "b": "FINISHED",
        "c": "FINISHED",
        "d": "KILLED",
        "e": "RUNNING",
    }
    assert {key: client.get_run(child.run_id).data.tags["state"] for key, child in children.items()} == STATES
    run = client.get_run(parent.run_id)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "partial"), "a failed trial stops no sweep"
    _close(directory.path, parent, runs, stopped=True, status="partial")
    assert client.get_run(parent.run_id).info.status == "KILLED"


def test_the_space_in_the_record_is_the_newest(tmp_path: Path, uri: str) -> None:
    directory = RunDirectory(tmp_path / "runs/digits/sweep-one")
    for seeds in ("[0, 1]", "[0, 1, 2]"):
        path = _write(tmp_path, ONE + f"  seed: {{grid: {seeds}}}\n")
        sweep, trials = load_sweep(path, [f"tracking.uri={uri}"])
        parent = open_parent(directory, sweep, trials[0].config)
        assert parent
        _close(directory.path, parent, {key: directory.sibling(key) for key in STATES}, stopped=False, status="partial")
    client = MlflowClient(uri)
    assert client.get_run(parent.run_id).data.params == {}
    text = Path(client.download_artifacts(parent.run_id, "sweep.yaml", str(tmp_path))).read_text()
    assert "- 2\n" in text
