"""What workers do around the stages of a job."""

from pathlib import Path

import pytest

from tests.support.configs import tiny_config
from tests.support.jobs import ALONE, train_in
from zskt_dist.errors import UserError
from zskt_dist.runs.directory import Digest
from zskt_dist.runs.mirror import Mirror
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker


def test_every_checkpoint_is_uploaded_while_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the teacher's stage, too; else a machine that is lost takes the run with it."""
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "cache"))
    followed: list[tuple[str, bool]] = []
    push_soon = Mirror.push_soon

    def note(mirror: Mirror) -> None:
        followed.append((mirror.folder.parent.name, mirror._due is not None))
        push_soon(mirror)

    monkeypatch.setattr(Mirror, "push_soon", note)
    (tmp_path / "store").mkdir()
    train_in("train", tiny_config(tmp_path, f"runs_dir=file://{tmp_path / 'store'}"))
    # Every 3 of 12 iterations; every 3 of 10 and at the end.
    assert followed == [("teachers", True)] * 4 + [("digits", True)] * 4


def test_a_run_on_the_way_is_one_of_the_same_files(tmp_path: Path) -> None:
    """Finetuning would otherwise begin with the student of another teacher."""
    teacher = train_in("pretrain", tiny_config(tmp_path)).weights("teacher")
    few = ("data.images_per_class=2", "finetune.iterations=2")
    config = tiny_config(tmp_path, *few, f"teacher.checkpoint={teacher}")
    jobs = [
        Job(stages, "local", digests={"teacher.checkpoint": Digest(str(teacher), sha256)})
        for stages, sha256 in ((Job.plan("train", config).stages, "1"), (Job.plan("finetune", config).stages, "2"))
    ]
    jobs[0].directory.begin("train", config, str(teacher), files=jobs[0].digests)
    Worker(jobs[0], ALONE).run()
    with pytest.raises(UserError, match=r"teacher.checkpoint=.*: has changed since .* began"):
        Worker(jobs[1], ALONE).run()
