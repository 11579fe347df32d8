"""Several seeds: means by hand arithmetic, runs shared with single-seed commands, nested in MLflow."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.support.configs import TINY
from zskt_dist import cli

ARGUMENTS = [*TINY, "iterations=2", "supervised.iterations=2", "finetune.iterations=2", "finetune.batch_size=8"]


def _result(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_means_over_seeds_and_runs_nested_under_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    arguments = [*ARGUMENTS, f"tracking.uri={store}"]
    assert cli.training_command("train", "", [*arguments, "seed=1", "--json", "one.json"]) == 0
    assert cli.training_command("train", "", [*arguments, "seeds=[0,1]", "--json", "both.json"]) == 0
    one, both = _result(tmp_path / "one.json"), _result(tmp_path / "both.json")
    assert one["name"] in both["runs"], "the finished run of seed 1 was to be used"
    assert both["seeds"] == [0, 1]
    runs = [_result(tmp_path / "runs/digits" / name / "result.json") for name in both["runs"]]
    a, b = (run["student"]["accuracy_last"] for run in runs)
    assert both["student"]["accuracy_last"] == pytest.approx((a + b) / 2, abs=1e-15)
    assert both["student"]["accuracy_last_std"] == pytest.approx(abs(a - b) / 2, abs=1e-15)
    assert runs[0]["student"]["sha256"] != runs[1]["student"]["sha256"]

    client = MlflowClient(tracking_uri=store)
    parent = client.get_run(both["mlflow"]["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["accuracy"] == pytest.approx(both["student"]["accuracy_last"])
    for run in runs:
        tags = client.get_run(run["mlflow"]["run_id"]).data.tags
        assert tags["mlflow.parentRunId"] == both["mlflow"]["run_id"]


def test_few_shot_runs_share_the_teacher_and_start_from_the_zero_shot_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = [*ARGUMENTS, "data.images_per_class=2"]
    assert cli.training_command("finetune", "", [*few, "finetune.learning_rate=1e-12", "--json", "tuned.json"]) == 0
    (zero_shot,) = (tmp_path / "runs/digits").glob("digits-????????/result.json")
    tuned = _result(tmp_path / "tuned.json")
    before, after = _result(zero_shot)["student"], tuned["student"]
    assert tuned["images_per_class"] == 2
    assert before["accuracy_last"] == after["accuracy_last"], "steps of 1e-12 change no prediction"
    assert before["sha256"] != after["sha256"]
    assert cli.training_command("distill", "", [*few, "--json", "kd.json"]) == 0
    assert cli.training_command("pretrain", "", [*few, "supervised.network=student", "--json", "scratch.json"]) == 0
    assert len(list((tmp_path / "runs/teachers").iterdir())) <= 2, "one teacher and its lock"
    assert _result(tmp_path / "scratch.json")["teacher"] is None
    subsets = [json.loads(path.read_text())["indices"] for path in tmp_path.glob("runs/digits/*/subset.json")]
    assert len(subsets) == 3
    assert subsets[0] == subsets[1] == subsets[2], "the same seed shows every method the same images"
    assert len(subsets[0]) == 20
    assert cli.training_command("distill", "", [*few, "data.images_per_class=999"]) == 2
