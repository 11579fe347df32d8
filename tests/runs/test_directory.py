"""A run goes on with the files it began with, or not at all."""

from pathlib import Path

import pytest

from tests.support.configs import tiny_config
from zskt_dist.errors import ConfigError
from zskt_dist.runs.directory import Digest, RunDirectory


def test_another_teacher_under_the_same_path_is_refused(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.pt"
    config = tiny_config(tmp_path, f"teacher.checkpoint={teacher}")
    directory = RunDirectory(tmp_path / "run")
    one, two = ({"teacher.checkpoint": Digest(str(teacher), sha256)} for sha256 in ("1", "2"))
    for _ in range(2):  # it begins, and goes on
        directory.check_files(one)
        directory.begin("train", config, str(teacher), files=one)
    before = directory.begun.read_bytes()
    for ask in (lambda: directory.check_files(two), lambda: directory.begin("train", config, files=two)):
        with pytest.raises(ConfigError, match=r"teacher.checkpoint=.*teacher.pt': has changed since .*began.*--fresh"):
            ask()
    assert directory.begun.read_bytes() == before
    directory.check_files({})  # who looks at a finished run need not have it any more
    directory.begin("train", config)
    with pytest.raises(ConfigError):
        directory.check_files(two)
