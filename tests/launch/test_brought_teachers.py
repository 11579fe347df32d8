"""`teacher.checkpoint=none`, from the command line: every verb that needs the teacher takes it as it comes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.commands import read_result, run
from tests.support.configs import tiny_overrides
from zskt_dist.commands import distill, evaluate, synthesize, train
from zskt_dist.export.__main__ import main as export
from zskt_dist.models import LeNet


@pytest.fixture
def overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a run whose teacher is a module of the current folder."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, 0)
    teacher = ["teacher.arch=tests.support.user_networks:Brought", "teacher.options.path=own.safetensors"]
    return tiny_overrides(tmp_path, *teacher, "teacher.checkpoint=none", "evaluation.snapshots=2")


def _write(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_file(LeNet(image_size=(8, 8)).state_dict(), folder / "own.safetensors")


def _accuracy() -> float:
    """Of the weights in the file, on the test digits."""
    from safetensors.torch import load_file

    from zskt_dist.config import Config
    from zskt_dist.data import open_dataset

    dataset, network = open_dataset(Config(), needs_train=False), LeNet(image_size=(8, 8))
    network.load_state_dict(load_file("own.safetensors"))
    x = dataset.standardise(torch.device("cpu"))(dataset.test.images)
    with torch.no_grad():
        return float((network.eval()(x).argmax(1) == dataset.test.labels).float().mean())


def _result(name: str) -> dict[str, Any]:
    return dict(json.loads(Path(f"runs/digits/{name}/result.json").read_text()))


def test_train_and_all_that_follows(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*overrides, "name=a", "--dry-run"]) == 0
    plan = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "21,386 parameters, with the weights that it comes with" in plan
    assert train.main([*overrides, "name=a"]) == 0
    assert not Path("runs/teachers").exists(), "nothing was trained"
    result = _result("a")
    assert result["teacher"]["accuracy"] == pytest.approx(_accuracy())
    run_directory, code = "runs/digits/a", "teacher.arch=tests.support.user_networks:Brought"
    began = json.loads(Path(run_directory, "command.json").read_text())
    assert began["teacher"].startswith("none:")
    assert train.main([*overrides, "name=a"]) == 0
    assert "Finished earlier" in capsys.readouterr().out

    assert evaluate.main([run_directory, code, "transitions.images=2", "transitions.steps=3"]) == 0
    answer = json.loads(Path(run_directory, "evaluation/evaluation.json").read_text())
    assert answer["settings"]["weights"]["teacher"] == began["teacher"]
    assert answer["teacher_accuracy"] == pytest.approx(_accuracy())
    assert export([run_directory, code, "--to", "safetensors", "card"]) == 0
    assert export([run_directory, code, "--to", "safetensors", "--role", "teacher"]) == 0
    assert synthesize.main([run_directory, code, "--images", "16"]) == 0
    about = json.loads(Path(run_directory, "pseudo_data/pseudo_data.json").read_text())
    assert about["teacher"]["sha256"] == began["teacher"]

    capsys.readouterr()
    _write(Path(), 1)
    assert train.main([*overrides, "name=a"]) == 2
    assert "holds a run with other settings (teacher.checkpoint)" in capsys.readouterr().err
    assert evaluate.main([run_directory, code, "--fresh"]) == 2
    assert "comes with other weights now" in capsys.readouterr().err
    assert evaluate.main([run_directory, code, "teacher.checkpoint=none", "transitions.images=0"]) == 0
    (other,) = Path(run_directory, "evaluation").glob("other-*")
    assert json.loads((other / "evaluation.json").read_text())["teacher_accuracy"] == pytest.approx(_accuracy())


def test_distill(overrides: list[str]) -> None:
    assert distill.main([*overrides, "name=b", "distill.beta=0"]) == 0
    assert _result("b")["teacher"]["accuracy"] == pytest.approx(_accuracy())


def test_two_workers(overrides: list[str], tmp_path: Path) -> None:
    code, output = run("train", *overrides, "launch.workers=2", "teacher.options.per_rank=true", folder=tmp_path)
    assert code == 0, output
    assert read_result(tmp_path)["teacher"]["accuracy"] == pytest.approx(_accuracy())


def test_untrained_networks_are_refused(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*overrides, "teacher.arch=lenet", "teacher.options={}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: teacher.checkpoint='none': is for package.module:callable")
