"""A teacher and no images: `train` from end to end, what it leaves out, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.commands import REPOSITORY
from tests.support.configs import TINY
from tests.support.images import png, write_parquet
from tests.support.results import check_result
from tests.support.stores import new_store
from zskt_dist.commands import evaluate
from zskt_dist.commands import shared as cli
from zskt_dist.models import ImageShape, InputSpec, build_network
from zskt_dist.networks.weights import read_about, save_weights
from zskt_dist.report import tables
from zskt_dist.report.runs import find_runs, group_runs
from zskt_dist.tracking.local import read_history

NO_DATA = [*TINY, "data.name=none", "name=run", "evaluation.held_out_images=8"]
NO_DATA += ["iterations=5", "evaluation.snapshots=2"]
NO_DATA += ["teacher.checkpoint=teacher.safetensors"]
RUN = Path("runs/digits/run")
COLOUR = ImageShape(3, 10, 14)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with a teacher of oblong colour images."""
    monkeypatch.chdir(tmp_path)
    _save_teacher("lenet", COLOUR, 5)
    return tmp_path


def _save_teacher(arch: str, shape: ImageShape, classes: int) -> None:
    torch.manual_seed(0)
    about = {"image_shape": list(shape), "num_classes": classes, "mean": [0.25] * shape[0], "std": [0.5] * shape[0]}
    save_weights(Path("teacher.safetensors"), build_network(arch, shape, classes), about)


def _train(*overrides: str, command: str = "train") -> int:
    return cli.training_command(command, "", [*NO_DATA, *overrides])


def _result(run: Path = RUN) -> dict[str, Any]:
    result = dict(json.loads((run / "result.json").read_text()))
    check_result(result)
    return result


@pytest.mark.parametrize(
    ("shape", "teacher", "student", "beta"),
    [
        (ImageShape(3, 30, 45), "wrn-10-1", "wrn-10-1", 250),
        (ImageShape(1, 28, 28), "lenet-2", "lenet", 250),
        (ImageShape(4, 17, 9), "wrn-16-1", "wrn-10-1", 250),
        (ImageShape(2, 33, 8), "wrn-10-1", "lenet", 0),
    ],
    ids=str,
)
def test_images_of_any_shape(
    shape: ImageShape, teacher: str, student: str, beta: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _save_teacher(teacher, shape, 5)
    assert _train(f"teacher.arch={teacher}", f"student.arch={student}", f"loss.beta={beta}") == 0
    about = read_about(RUN / "student.safetensors")
    mean_std = [0.25] * shape.channels, [0.5] * shape.channels
    assert (about["image_shape"], about["num_classes"]) == (list(shape), 5)
    assert (about["mean"], about["std"]) == mean_std, "who takes the student home has to know"
    sizes = [Image.open(path).size for path in (RUN / "figures").glob("pseudo_images_*.png")]
    scale = max(1, 48 // max(shape[1:]))
    assert set(sizes) == {(2 * (scale * shape.width + 2) + 2, 2 * (scale * shape.height + 2) + 2)}


def test_what_only_the_name_of_an_architecture_says_is_no_fact(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build_network("lenet", COLOUR, 5).state_dict(), "teacher.pt")
    usual = InputSpec(ImageShape(3, 224, 224), 1000, ((0.25,) * 3, (0.5,) * 3))
    monkeypatch.setattr("zskt_dist.networks.inputs.input_spec_of_arch", lambda _: usual)
    words = ["teacher.checkpoint=teacher.pt", "data.image_shape=[3,10,14]", "data.num_classes=5"]
    warning = "guessed from the name of teacher.arch: data.mean=[0.25,0.25,0.25] data.std=[0.5,0.5,0.5], "
    assert _train(*words, "--dry-run") == 0
    assert capsys.readouterr().out.count(warning) == 1
    assert warning not in caplog.text, "told once"
    assert _train(*words) == 0
    assert caplog.text.count(warning) == 1
    assert read_about(RUN / "student.safetensors")["normalised_by"] == "teacher.arch"


def test_what_is_measured_and_what_is_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train() == 0
    result = _result()
    assert (result["dataset"], result["num_classes"]) == ("none", 5)
    assert result["teacher"]["accuracy"] is None
    assert [result["student"][name] for name in ("accuracy_last", "accuracy_best", "agreement")] == [None] * 3
    assert 0 <= result["estimates"]["label_free_score"] <= 1
    rows = read_history(RUN / "history.parquet")
    assert [row["iteration"] for row in rows if "label_free_score" in row] == [4, 5]
    assert not any(name in row for row in rows for name in ("accuracy", "agreement"))
    output = capsys.readouterr().out
    assert "student 5/5 (100.0%): label_free_score" in output
    assert "How often it is right was not measured" in output
    assert _train() == 0, "a finished run answers"


def test_the_student_is_the_one_that_a_run_with_test_images_makes(folder: Path) -> None:
    about = {"image_shape": [1, 8, 8], "num_classes": 10, "mean": [0.3054], "std": [0.376]}
    save_weights(Path("teacher.safetensors"), build_network("lenet", ImageShape(1, 8, 8), 10), about)
    assert _train("name=none") == 0
    assert _train("name=digits", "data.name=digits") == 0
    none, digits = (_result(RUN.with_name(name)) for name in ("none", "digits"))
    assert none["student"]["sha256"] == digits["student"]["sha256"]
    assert none["estimates"] == digits["estimates"]
    assert digits["student"]["agreement"] is not None


def test_nothing_at_all_may_be_measured(folder: Path) -> None:
    assert _train("evaluation.held_out_images=0", "iterations=3") == 0
    assert _result()["estimates"] is None


def test_several_seeds_have_no_mean_accuracy_and_are_recorded(folder: Path) -> None:
    from mlflow import MlflowClient

    store = new_store(folder)
    assert _train("seeds=[0,1]", "iterations=2", f"tracking.uri={store}") == 0
    result = _result()
    assert (result["student"]["accuracy_last"], result["student"]["accuracy_last_std"]) == (None, None)
    client = MlflowClient(tracking_uri=store)
    run = client.get_run(_result(RUN.with_name("run-seed1"))["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset"] == "none"
    assert "test/accuracy" not in run.data.metrics
    assert "label_free/score" in run.data.metrics
    assert "test/accuracy" not in client.get_run(result["mlflow"]["run_id"]).data.metrics


def test_the_report_has_the_run_and_no_accuracy(folder: Path) -> None:
    from zskt_dist.report import __main__ as report

    assert _train() == 0
    groups = group_runs(find_runs([folder / "runs"]))
    (row,) = tables.summary(groups).to_dict("records")
    assert (row["data"], row["accuracy %"], row["agreement %"]) == ("none", "", "")
    assert tables.table_1(groups).empty, "there is nothing to compare, and nothing that could be run"
    assert report.main(["runs", "--out", "report"]) == 0
    text = (folder / "report/report.md").read_text()
    assert "Missing" not in text
    assert "figure_3" in text


def test_dry_run_says_what_cannot_be_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train("--dry-run") == 0
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "none, 3x10x14, 5 classes, no data: accuracy cannot be measured; label-free scores only" in output
    assert "mean 0.25, 0.25, 0.25 and std 0.5, 0.5, 0.5, from teacher.checkpoint" in output
    assert "ready: configuration" in output
    assert "memory about" in output
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("dry", [True, False])
def test_an_image_that_is_too_small_is_refused_before_training(
    dry: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save_teacher("wrn-10-1", ImageShape(1, 7, 40), 5)
    assert _train("teacher.arch=wrn-10-1", *(["--dry-run"] if dry else [])) == 2
    said = capsys.readouterr()
    assert said.err == "error: student.arch='lenet': LeNet needs images of at least 8x8, got 7x40\n"
    assert "as a Ray job" not in said.out


@pytest.mark.parametrize("command", ["pretrain", "distill", "finetune"])
def test_commands_that_learn_from_images(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(command=command) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: data.name='none'")
    assert said.count("\n") == 1
    assert f"{command} learns from labelled images" in said


def test_without_a_teacher_nothing_can_be_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train("teacher.checkpoint=null", "data.image_shape=[1,8,8]", "data.num_classes=3") == 2
    assert capsys.readouterr().err.startswith("error: teacher.checkpoint=None: with data.name=none")


def test_evaluate_asks_for_images_and_takes_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train() == 0
    result = _result()
    assert evaluate.main([str(RUN)]) == 2
    assert "name them: data.name=… data.root=…" in capsys.readouterr().err
    rng = np.random.default_rng(0)
    images = [png(rng.integers(0, 256, (10, 14, 3), dtype=np.uint8)) for _ in range(10)]
    write_parquet(folder / "images/test-0.parquet", images, [0, 1, 2, 3, 4] * 2)
    words = ["data.name=parquet", "data.root=images", "transitions.images=0", "evaluation.noise_images=0"]
    assert evaluate.main([str(RUN), *words, "--json", "told.json"]) == 0
    answer = json.loads((folder / "told.json").read_text())["evaluation"]
    assert answer["images"] == 10
    assert answer["accuracy"] * 10 == pytest.approx(round(answer["accuracy"] * 10))
    assert _result() == result, "the run itself has no test images"
    assert evaluate.main([str(RUN), "data.name=digits"]) == 2
    assert "images of [1,8,8]" in capsys.readouterr().err


LARGE = """
import resource, sys
from pathlib import Path
import torch
from zskt_dist.commands import shared as cli
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.weights import save_weights

teacher = build_network("wrn-10-1", ImageShape(3, 224, 224), 1000)
torch.save(teacher.state_dict(), "teacher.pt")
code = cli.training_command("train", "", sys.argv[1:])
print("peak GiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
raise SystemExit(code)
"""


@pytest.mark.slow
def test_224_pixels_and_1000_classes_in_less_than_8_gib(tmp_path: Path) -> None:
    """Two iterations at the generator's full width, with evaluation and checkpoint: docs/inputs.md has the figure."""
    words = ["data.name=none", "data.image_shape=[3,224,224]", "data.num_classes=1000", "name=run"]
    words += ["data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]", "tracking.uri=none", "iterations=2"]
    words += ["teacher.arch=wrn-10-1", "teacher.checkpoint=teacher.pt", "student.arch=wrn-10-1", "batch_size=4"]
    words += ["transfer.student_steps=2", "evaluation.held_out_images=8", "tracking.images=4", "speed=plain"]
    words += ["evaluation.snapshots=1", "evaluation.yardstick=false", "checkpoint.every=0"]
    command = [sys.executable, "-c", LARGE, *words]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = _result(tmp_path / RUN)
    assert result["num_classes"] == 1000
    assert read_about(tmp_path / RUN / "student.safetensors")["image_shape"] == [3, 224, 224]
    peak = float(done.stdout.split("peak GiB")[1])
    assert 0.5 < peak < 8, "with the process itself"
