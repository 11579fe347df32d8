"""The first screen: its Python runs, its commands run, and it fits on a screen or two."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import REPOSITORY, finish, python

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
FEW = {"warm_up": 1, "rounds": 1, "steps": 1, "images": 10, "parts": 1, "views": 1}
"""Of an inversion: enough to see that everything is called as it should be."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader's teacher lies."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("reader")
    save_file(timm.create_model("resnet18", num_classes=10, in_chans=1).state_dict(), path / "teacher.safetensors")
    return path


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 100


def test_its_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (code,) = (text for language, text in BLOCKS if language == "python")
    assert code.count("std=0.31)") == 1
    settings = {f"inversion.{key}": value for key, value in FEW.items()} | {"evaluation.yardstick": False}
    names: dict[str, Any] = {"settings": settings}
    shorter = code.replace("std=0.31)", "std=0.31, iterations=2, batch_size=8, progress=False, config=settings)")
    exec(compile(shorter, "README.md", "exec"), names)
    assert names["result"].iterations == 2
    assert (folder / "student/student.safetensors").exists()


def test_its_commands_run(folder: Path) -> None:
    commands = [
        shlex.split(line, comments=True)
        for language, text in BLOCKS
        if not language
        for line in text.splitlines()
        if line.startswith("zskt ")
    ]
    assert [words[1] for words in commands] == ["init", "train"]
    asked = ["--image-shape", "1,28,28", "--mean", "0.13", "--std", "0.31", "--yes"]
    fewer = [*(f"inversion.{key}={value}" for key, value in FEW.items()), "iterations=2", "batch_size=8", "name=run"]
    fewer += ["tracking.uri=none", "evaluation.yardstick=false", "checkpoint.every=0", "evaluation.every=0"]
    output = ""
    for (_, verb, *words), more in zip(commands, (asked, fewer), strict=True):
        code, output = finish(python("-m", f"zskt_dist.{verb}", *words, *more, folder=folder))
        assert code == 0, output
    (line,) = (line for line in output.splitlines() if "zskt export" in line)
    *command, run = shlex.split(line, comments=True)[1:]
    assert command == ["zskt", "export"]
    code, output = finish(python("-m", "zskt_dist.export", run, "--to", "safetensors", folder=folder))
    assert code == 0, output
