"""Memory and disk at their end: one line that says what would work."""

import errno
import os
from pathlib import Path

import pytest
import torch

from tests.support.configs import tiny_config
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.tasks.supervised import ImageTraining
from zskt_dist.training.job import Job
from zskt_dist.training.out_of_memory import shortage_as_user_error
from zskt_dist.training.worker import Worker

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB"


def _run(folder: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str], error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(*place, fail)
        Worker(Job.plan("pretrain", tiny_config(folder)), World(torch.device("cpu"))).run()


def test_too_little_memory_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = torch.OutOfMemoryError(OUT_OF_MEMORY)
    with pytest.raises(
        UserError, match=r"^not enough memory .*\(CUDA out of memory\); engine.micro_batch=32, .*--dry-run"
    ):
        _run(tmp_path, monkeypatch, (ImageTraining, "step"), error)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is given back: where there is room again, the same run ends well."""
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match=r"^a file cannot be written: No space left on device; make room"):
        _run(tmp_path, monkeypatch, (CheckpointStore, "save"), error)
    job = Job.plan("pretrain", tiny_config(tmp_path))
    Worker(job, World(torch.device("cpu"))).run()
    assert job.directory.result.exists()


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(PermissionError), shortage_as_user_error():
        raise PermissionError(errno.EACCES, "no")
