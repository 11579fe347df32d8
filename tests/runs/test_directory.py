"""A run goes on with the files it began with, or not at all."""

from pathlib import Path

import pytest

from tests.support.configs import tiny_config
from zskt_dist.errors import ConfigError
from zskt_dist.runs.directory import RunDirectory


def test_another_teacher_under_the_same_path_is_refused(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(b"one")
    config = tiny_config(tmp_path, f"teacher.checkpoint={teacher}")
    directory = RunDirectory(tmp_path / "run")
    for _ in range(2):  # it begins, and goes on
        directory.check_files(config)
        directory.begin("train", config, str(teacher))
    before = directory.begun.read_bytes()
    teacher.write_bytes(b"two")
    for ask in (lambda: directory.check_files(config), lambda: directory.begin("train", config, str(teacher))):
        with pytest.raises(ConfigError, match=r"teacher.checkpoint=.*teacher.pt': has changed since .*began.*--fresh"):
            ask()
    assert directory.begun.read_bytes() == before
    teacher.unlink()
    directory.check_files(config)  # who looks at a finished run need not have it any more


def test_a_run_of_before_the_check_goes_on(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(b"one")
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.begun.write_text('{"command": "train", "teacher": null, "group": null}')
    directory.begin("train", tiny_config(tmp_path, f"teacher.checkpoint={teacher}"), None)
    teacher.write_bytes(b"two")
    with pytest.raises(ConfigError):
        directory.check_files(tiny_config(tmp_path, f"teacher.checkpoint={teacher}"))
