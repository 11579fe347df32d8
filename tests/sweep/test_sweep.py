"""A real sweep on real Ray: killed and given again, one trial that fails, each trial once, nested in MLflow."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.support.commands import command, finish, kill_group, wait_until
from tests.support.configs import TINY
from tests.support.ray_cluster import RayCluster
from tests.support.results import check_result
from zskt_dist.files import sha256_of
from zskt_dist.sweep import __main__ as sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = {key: yaml.safe_load(value) for key, value in (text.split("=") for text in TINY) if key != "tracking.uri"}


def _write(folder: Path) -> Path:
    (folder / "base.yaml").write_text("teacher: {seed: 0}\n")
    settings = SETTINGS | {"iterations": 30, "evaluation.every": 10, "evaluation.held_out_images": 64}
    path = folder / "sweep.yaml"
    path.write_text(
        f"title: Three rates\nname: rates\nconfig: base.yaml\nset: {json.dumps(settings)}\n"
        # The rate of the second trial is beyond all bounds, on purpose.
        "space:\n  optimizer.student_lr: {grid: [1.0e-3, 1.0e+30, 3.0e-3]}\n"
        "evaluate: {transitions.images: 4, transitions.steps: 3, evaluation.noise_images: 8}\nconcurrent: 1\n"
    )
    return path


def _states(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs/digits/sweep-rates/trials.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def _student(folder: Path, run: str) -> tuple[str, str, int]:
    """Of a finished run: the sha256 in its result and of the file, and when the result was written (ns)."""
    result = folder / "runs/digits" / run / "result.json"
    told = json.loads(result.read_text())["student"]["sha256"]
    return told, sha256_of(result.with_name("student.safetensors")), result.stat().st_mtime_ns


@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_and_ends_with_every_trial_once(ray_cluster: RayCluster, tmp_path: Path) -> None:
    path = _write(tmp_path)
    arguments = ["--config", str(path), "--json", "out.json"]
    first = command("sweep", *arguments, folder=tmp_path, environment=ray_cluster.environment, package="tune")
    wait_until(lambda: any(state["state"] == "finished" for state in _states(tmp_path)), first, timeout=400)
    kill_group(first)
    first.wait()
    done = {state["hash"]: state["run"] for state in _states(tmp_path) if state["state"] == "finished"}
    before = {key: _student(tmp_path, run) for key, run in done.items()}

    again = command("sweep", *arguments, folder=tmp_path, environment=ray_cluster.environment, package="tune")
    code, output = finish(again, timeout=500)
    assert code == 0, output
    states = _states(tmp_path)
    assert [state["state"] for state in states] == ["finished", "failed", "finished"]
    assert "diverged" in states[1]["message"]
    assert {state["hash"]: state["starts"] for state in states if state["hash"] in done} == dict.fromkeys(done, 1)
    assert {key: _student(tmp_path, run) for key, run in done.items()} == before, "what had finished is left alone"
    result = json.loads((tmp_path / "out.json").read_text())
    check_result(result)
    assert result["status"] == "partial", "the failed trial is tried again by the same command"
    assert (result["trials"], result["finished"], result["failed"]) == (3, 2, 1)
    assert result["best"]["score"] is not None
    assert result["best"]["mte"] is not None
    _check_mlflow(tmp_path, result)


def _check_mlflow(folder: Path, result: dict[str, Any]) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    parent = client.get_run(result["mlflow"]["run_id"])
    assert parent.data.tags["command"] == "sweep"
    assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", "partial")
    shown = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert shown >= {"report.html", "sweep.yaml", "tables", "figures"}
    runs = client.search_runs([parent.info.experiment_id])
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3, "one run for each trial, whatever was killed"
    assert len({run.data.params["optimizer.student_lr"] for run in children}) == 3
    best = [run for run in children if run.data.tags.get("best") == "true"]
    lr = result["best"]["settings"]["optimizer.student_lr"]
    name = f"lenet → lenet, zero-shot, optimizer.student_lr={lr} ({result['best']['run']})"
    assert [run.info.run_name for run in best] == [name]
    for run in children:
        assert run.data.params["Swept/optimizer.student_lr"] == run.data.params["optimizer.student_lr"]
    assert result["best"]["run"] in parent.data.tags["mlflow.note.content"]
    finished = [run for run in children if run.info.status == "FINISHED"]
    assert len(finished) == 2
    measured = {"sweep/score", "test/accuracy", "label_free/score", "test/mte"}
    assert all(measured <= set(run.data.metrics) for run in finished)


def test_help_is_quick_and_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
