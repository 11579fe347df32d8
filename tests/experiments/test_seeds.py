"""Several seeds: means by hand arithmetic, runs shared with single-seed commands, nested in MLflow."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.support import commands
from tests.support.configs import TINY
from tests.support.forked_python import forked_python
from tests.support.results import check_result
from tests.support.stores import new_store
from zskt_dist.commands import shared as cli
from zskt_dist.files import read_json
from zskt_dist.launch import mlflow_run as record
from zskt_dist.runs.several import summarise_estimates, summarise_mte
from zskt_dist.tracking.mlflow.store import RunAddress

ARGUMENTS = [*TINY, "iterations=2", "supervised.iterations=2", "finetune.iterations=2", "finetune.batch_size=8"]


def _result(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_means_over_seeds_and_runs_nested_under_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
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
    for result in (one, both, *runs):
        check_result(result)
    assert both["attention"]
    assert both["attention"] == runs[0]["attention"] == runs[1]["attention"]
    a, b = (run["estimates"]["label_free_score"] for run in runs)
    assert both["estimates"]["label_free_score"] == pytest.approx((a + b) / 2, abs=1e-15)
    a, b = (run["estimates"]["sources"]["noise"]["agreement"] for run in runs)
    noise = both["estimates"]["sources"]["noise"]
    assert (noise["agreement"], noise["agreement_std"]) == pytest.approx(((a + b) / 2, abs(a - b) / 2), abs=1e-15)
    assert f"{50 * (a + b):.1f} ± {50 * abs(a - b):.1f}" in capsys.readouterr().out

    client = MlflowClient(tracking_uri=store)
    parent = client.get_run(both["mlflow"]["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test/accuracy"] == pytest.approx(both["student"]["accuracy_last"])
    assert parent.data.metrics["estimate/noise_agreement_std"] == pytest.approx(noise["agreement_std"])
    for run in runs:
        tags = client.get_run(run["mlflow"]["run_id"]).data.tags
        assert tags["mlflow.parentRunId"] == both["mlflow"]["run_id"]


def _nested(client: MlflowClient, parent: dict[str, Any], run: dict[str, Any]) -> bool:
    tags = client.get_run(run["mlflow"]["run_id"]).data.tags
    return bool(tags.get("mlflow.parentRunId") == parent["mlflow"]["run_id"])


def test_seeds_are_nested_however_mlflow_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    arguments = [*ARGUMENTS, "name=run", "seeds=[0,1]", "teacher.seed=0", f"tracking.uri={store}", "tracking.images=0"]

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        opened, calls = record.open_run, []

        def first_away(*arguments: Any, **settings: Any) -> Any:
            calls.append(arguments)
            return away() if len(calls) == 1 else opened(*arguments, **settings)

        patch.setattr(record, "open_run", first_away)  # the group's
        patch.setattr(record, "_log_model", lambda *_: "none")
        assert cli.training_command("train", "", arguments) == 0
    folder = tmp_path / "runs/digits"
    client = MlflowClient(tracking_uri=store)
    runs = [_result(folder / f"run-seed{seed}/result.json") for seed in (0, 1)]
    assert all(_nested(client, _result(folder / "run/result.json"), run) for run in runs)

    other = f"sqlite:///{tmp_path}/other.db"  # nothing was ever there
    client = MlflowClient(tracking_uri=other)
    for name in ("run", "run-seed0"):
        assert "complete" in record.replay_command(str(folder / name), other)
    assert _nested(client, _result(folder / "run/result.json"), _result(folder / "run-seed0/result.json"))


def test_a_seed_cut_short_is_repaired_and_a_stopped_group_is_not_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    arguments = [*ARGUMENTS, "name=run", "seeds=[0]", f"tracking.uri={store}", "tracking.images=0"]
    upload, uploads = record.upload, []

    def killed(address: RunAddress, **settings: Any) -> int:
        uploads.append(address)
        if len(uploads) == 1:
            raise KeyboardInterrupt
        return upload(address, **settings)

    monkeypatch.setattr(record, "upload", killed)
    monkeypatch.setattr(record, "_log_model", lambda *_: "none")
    assert cli.training_command("train", "", arguments) == 130
    client = MlflowClient(tracking_uri=store)
    group, single = (read_json(tmp_path / f"runs/digits/{name}/mlflow.json") for name in ("run", "run-seed0"))
    assert client.get_run(group["run_id"]).info.status == "KILLED"
    assert client.get_run(single["run_id"]).info.status == "RUNNING"
    assert cli.training_command("train", "", arguments) == 0
    assert {client.get_run(each["run_id"]).info.status for each in (group, single)} == {"FINISHED"}
    assert "test/accuracy" in client.get_run(single["run_id"]).data.metrics


def test_a_named_seed_of_other_settings_is_no_seed_of_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [*ARGUMENTS, "tracking.uri=none"]
    assert cli.training_command("train", "", [*tiny, "name=foo-seed0", "loss.beta=1"]) == 0
    assert cli.training_command("train", "", [*tiny, "name=foo", "seeds=[0]"]) == 2
    assert "foo-seed0" in capsys.readouterr().err


MTE = {"value": 0.5, "images": 10, "steps": 3, "step_size": 1.0, "stepped": "student", "skip": "agreed"}


@pytest.mark.parametrize(
    ("change", "mean"),
    [
        ({}, 0.4),
        ({"images": 20}, 0.4),
        ({"steps": 4}, None),
        ({"step_size": 2.0}, None),
        ({"stepped": "teacher"}, None),
        ({"skip": "label"}, None),
        ({"dataset": "mnist"}, None),
    ],
)
def test_transition_errors_are_averaged_only_where_they_were_measured_alike(
    change: dict[str, Any], mean: float | None
) -> None:
    summary = summarise_mte([MTE, MTE | {"value": 0.3} | change])
    assert (summary and summary["value"]) == (mean and pytest.approx(mean))
    assert summarise_mte([MTE, None]) is None


def test_estimates_are_averaged_where_all_seeds_have_them() -> None:
    one = {"score": 0.25, "drift": 1.0, "sources": {"noise": {"agreement": 0.5}, "held_out": {"agreement": 1.0}}}
    other = {"score": 0.75, "sources": {"noise": {"agreement": 0.7}}}
    summary = summarise_estimates([one, other])
    assert summary == {
        "score": 0.5,
        "score_std": 0.25,
        "sources": {"noise": {"agreement": pytest.approx(0.6), "agreement_std": pytest.approx(0.1)}},
    }
    assert summarise_estimates([one, None]) is None


def test_two_ranks_of_torchrun_run_several_seeds(tmp_path: Path) -> None:
    settings = ["tracking.uri=none", "tracking.images=0", "teacher.seed=0", "launch.cpus_per_worker=1"]
    code, output = commands.run("train", *ARGUMENTS, *settings, "launch.workers=2", "seed=2", folder=tmp_path)
    assert code == 0, output
    ranks = ["--standalone", "--nproc-per-node=2", "-m", "zskt_dist.train"]
    settings += ["seeds=[2,0,1]"]  # the first of them is finished already
    code, output = commands.module(
        "torch.distributed.run", *ranks, *ARGUMENTS, *settings, folder=tmp_path, environment=forked_python(tmp_path)
    )
    assert code == 0, output
    (both,) = [result for path in tmp_path.glob("runs/digits/*/result.json") if "seeds" in (result := _result(path))]
    runs = [_result(tmp_path / "runs/digits" / name / "result.json") for name in both["runs"]]
    assert [result["seed"] for result in runs] == [2, 0, 1]
    assert {result["world_size"] for result in runs} == {2}
    assert len(list(tmp_path.glob("runs/digits/*/result.json"))) == 4, "the finished run was used"


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
    for path in tmp_path.glob("runs/*/*/result.json"):  # of the teacher, too
        check_result(_result(path))
    subsets = [json.loads(path.read_text())["indices"] for path in tmp_path.glob("runs/digits/*/subset.json")]
    assert len(subsets) == 3
    assert subsets[0] == subsets[1] == subsets[2], "the same seed shows every method the same images"
    assert len(subsets[0]) == 20
    assert cli.training_command("distill", "", [*few, "data.images_per_class=999"]) == 2
