"""The MLflow record is completed by the same command, whatever cut its upload short."""

import hashlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.configs import TINY, tiny_config
from tests.support.finished import finished_run
from tests.support.stores import new_store
from zskt_dist.commands import replay
from zskt_dist.commands import shared as cli
from zskt_dist.config import flatten
from zskt_dist.data import open_dataset
from zskt_dist.errors import DamagedFileError
from zskt_dist.export import __main__ as export
from zskt_dist.files import read_json, write_json
from zskt_dist.launch import mlflow_run as record
from zskt_dist.launch.mlflow_facts import result_tags, run_name, swept_params
from zskt_dist.launch.mlflow_run import attempt
from zskt_dist.runs.conclusion import conclusion
from zskt_dist.runs.directory import Differs, RunDirectory


def test_a_record_cut_short_is_completed_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    arguments = [*TINY, "iterations=2", "name=run", f"tracking.uri={store}"]

    def killed(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record, "upload", killed)
        assert cli.training_command("train", "", arguments) == 130
    address = read_json(tmp_path / "runs/digits/run/mlflow.json")
    client = MlflowClient(tracking_uri=store)
    assert client.get_run(address["run_id"]).info.status == "RUNNING"

    assert cli.training_command("train", "", arguments) == 0
    run = client.get_run(address["run_id"])
    assert run.info.status == "FINISHED"
    accuracy = read_json(tmp_path / "runs/digits/run/result.json")["student"]["accuracy_last"]
    assert run.data.metrics["test/accuracy"] == accuracy
    assert "model_uri" in run.data.tags
    assert read_json(tmp_path / "runs/digits/run/mlflow.json")["complete"]


def test_mlflow_says_what_a_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    folder, client = tmp_path / "runs/digits/run", MlflowClient(tracking_uri=store)
    arguments = [*TINY, "iterations=2", "loss.beta=7", "name=run", f"tracking.uri={store}"]
    assert cli.training_command("train", "", arguments) == 0
    result = read_json(folder / "result.json")
    run = client.get_run(result["mlflow"]["run_id"])
    assert run.info.run_name.startswith("lenet → lenet, zero-shot, ")
    assert run.info.run_name.endswith(" (run)")
    assert {"loss.beta=7.0", "iterations=2"} <= set(run.info.run_name.removesuffix(" (run)").replace(",", "").split())
    assert "tracking" not in run.info.run_name
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith(" ".join(conclusion(result)))
    assert "`zskt export runs/digits/run`" in note
    assert (run.data.tags["mlflow.source.name"], run.data.tags["mlflow.source.type"]) == ("zskt train", "LOCAL")
    assert run.data.tags.get("mlflow.source.git.commit") == result["git_commit"]

    config = RunDirectory(folder).read_config()
    assert config
    test = open_dataset(config).test
    sha256 = hashlib.sha256(test.images.numpy().tobytes() + test.labels.numpy().tobytes()).hexdigest()
    assert result["test_images"] == {"images": len(test.labels), "sha256": sha256}
    inputs = {each.dataset.name: (each.dataset.digest, each.tags[0].value) for each in run.inputs.dataset_inputs}
    assert inputs == {"data-free, no image": ("none", "training"), "digits": (sha256[:16], "testing")}
    teachers = client.get_experiment_by_name("teachers")
    assert teachers
    (teacher,) = client.search_runs([teachers.experiment_id])
    (path,) = tmp_path.glob("runs/teachers/*/result.json")
    accuracy = read_json(path)["teacher"]["accuracy"]
    told = f"The teacher (lenet) is right on {100 * accuracy:.2f} % of the test images of digits."
    assert teacher.data.tags["mlflow.note.content"] == told
    assert all("/" in name for each in (run, teacher) for name in each.data.metrics), "each has a group"

    # As an earlier version has left it: the metrics under their plain names, the run named as its folder.
    known = read_json(folder / "mlflow.json")
    earlier = client.create_run(run.info.experiment_id, run_name="run", tags={"run_directory": str(folder)})
    client.log_metric(earlier.info.run_id, "accuracy", result["student"]["accuracy_last"], step=2)
    del known["grouped"]
    write_json(folder / "mlflow.json", known | {"run_id": earlier.info.run_id})
    assert cli.training_command("train", "", arguments) == 0
    now = client.get_run(earlier.info.run_id)
    assert now.info.run_name == run.info.run_name
    assert now.data.metrics == run.data.metrics | {"accuracy": result["student"]["accuracy_last"]}


def test_names_say_what_differs_and_fit(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "seed=3", "teacher.arch=wrn-16-2", "loss.beta=10")
    differs = Differs(("teacher.arch", "loss.beta", "data.name", "tracking.uri", "launch.workers"), ("seed",))
    assert run_name("a-1", "train", config, differs) == "wrn-16-2 → lenet, zero-shot, seed=3 loss.beta=10.0 (a-1)"
    assert run_name("a-1", "train", config, Differs()) == "wrn-16-2 → lenet, zero-shot (a-1)"
    assert run_name("a-1", "pretrain", config, Differs()) == "wrn-16-2, teacher (a-1)"
    many = Differs(tuple(key for key, _ in flatten(config)))
    name = run_name("a-1", "train", config, many)
    assert (len(name), name[-7:]) == (250, "… (a-1)")


def test_swept_parameters_come_first(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "loss.beta=10", "transfer.student_steps=5")
    swept = swept_params(config, ("loss.beta", "transfer.student_steps"))
    assert swept == {"Swept/loss.beta": 10.0, "Swept/transfer.student_steps": 5}
    assert sorted([*dict(flatten(config)), *swept])[:2] == sorted(swept)


def test_a_deleted_experiment_is_told_and_replay_goes_to_the_store_of_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    client = MlflowClient(tracking_uri=store)
    number = client.create_experiment("digits")
    client.delete_experiment(number)
    arguments = [*TINY, "iterations=2", "name=run", f"tracking.uri={store}"]
    assert cli.training_command("train", "", [*arguments, "--dry-run"]) == 0
    remedy = (
        f"the experiment 'digits' was deleted there; restore it (mlflow experiments restore --experiment-id {number})"
    )
    assert f"MLflow: {store}: {remedy}" in capsys.readouterr().out
    assert cli.training_command("train", "", arguments) == 0
    assert f"MLflow at {store}: {remedy}" in caplog.text
    capsys.readouterr()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = str(tmp_path / "runs/digits/run")
    assert replay.main([run]) == 2
    assert remedy in capsys.readouterr().err
    client.restore_experiment(number)
    assert replay.main([run]) == 0
    assert f"complete at {store}" in capsys.readouterr().out
    assert not list(elsewhere.iterdir())
    address = read_json(tmp_path / "runs/digits/run/mlflow.json")
    assert client.get_run(address["run_id"]).info.status == "FINISHED"


def test_a_password_is_nowhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    closed_port: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    server = f"127.0.0.1:{closed_port}"
    arguments = [
        *TINY,
        "iterations=2",
        "supervised.iterations=2",
        "name=run",
        f"tracking.uri=http://me:geheim@{server}",
    ]
    assert cli.training_command("train", "", [*arguments, "--dry-run"]) == 0
    assert cli.training_command("train", "", arguments) == 0
    assert replay.main(["runs/digits/run"]) == 2
    printed = capsys.readouterr()
    assert f"http://***@{server}" in printed.out + printed.err
    assert "geheim" not in printed.out + printed.err + caplog.text
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert tmp_path / "runs/digits/run/config.yaml" in files
    assert not [path for path in files if b"geheim" in path.read_bytes()]


def test_a_student_that_cannot_be_traced_is_recorded_without_its_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    student = ["student.arch=tests.support.user_networks:Undecided", "loss.beta=0"]
    arguments = [*TINY, *student, "iterations=2", "supervised.iterations=2", "name=run", f"tracking.uri={store}"]
    assert cli.training_command("train", "", arguments) == 0
    assert "the model cannot be logged" in caplog.text
    address = read_json(tmp_path / "runs/digits/run/mlflow.json")
    assert address["complete"]
    capsys.readouterr()
    assert export.main(["runs/digits/run", student[0], "--to", "mlflow"]) == 2
    *_, said = capsys.readouterr().err.splitlines()  # before it torch's own warning
    assert said.startswith("error: the model cannot be logged in MLflow, as torch.export writes it: ")
    assert "cannot be reached" not in caplog.text
    run = MlflowClient(tracking_uri=store).get_run(address["run_id"])
    assert run.info.status == "FINISHED"
    assert "test/accuracy" in run.data.metrics


def test_a_commit_that_is_not_known_is_no_tag(tmp_path: Path) -> None:
    path = finished_run(tmp_path, "train")
    result = read_json(path / "result.json") | {"launcher": "local", "world_size": 1}
    config = RunDirectory(path).read_config()
    assert config
    assert "git_commit" not in result_tags(config, result | {"git_commit": None})
    assert result_tags(config, result | {"git_commit": "abc"})["git_commit"] == "abc"


def test_an_error_in_a_file_of_ours_is_not_mlflows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def damaged() -> None:
        raise DamagedFileError("history.parquet is damaged; restore it")

    def missing() -> None:
        (tmp_path / "gone.png").read_bytes()

    def unreachable() -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    for action in (damaged, missing, unreachable):
        assert attempt("sqlite:///x.db", action, "later") is None
    first, second, third = caplog.messages
    assert first == "history.parquet is damaged; restore it. So MLflow at sqlite:///x.db lacks it"
    assert second.startswith(f"{tmp_path / 'gone.png'}: No such file or directory. So MLflow at sqlite:///x.db lacks")
    assert third.startswith("MLflow at sqlite:///x.db cannot be reached (ConnectionRefusedError")
