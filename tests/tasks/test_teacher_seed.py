"""Which seed the teacher of a run has, and what identities follow from it."""

from pathlib import Path

import pytest

from zskt_dist.config import Config, load_config
from zskt_dist.errors import UserError
from zskt_dist.experiments.seeds import runs_of_seeds
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.stages import identity, pinned, stages
from zskt_dist.training.job import Job


def _config(*overrides: str) -> Config:
    return load_config(None, overrides)


@pytest.mark.parametrize("command", ["train", "distill", "finetune"])
def test_the_seed_changes_the_student_alone(command: str) -> None:
    """Runs of all seeds have the teacher of seed 0, unless they say otherwise."""
    teacher = stages("pretrain", Config())[0]
    for words in (["seed=1"], ["seeds=[0,1]"], ["seed=1", "teacher.seed=0"]):
        first, *_, goal = stages(command, _config(*words))
        assert (first.run, first.config.seed, first.config.teacher.seed) == (teacher.run, 0, None)
        assert goal.config.teacher_seed == 0
        assert goal.config.seed == _config(*words).seed
    own = stages("pretrain", _config("seed=1"))[0]
    assert own.run != teacher.run
    for words in (["seed=1", "teacher.seed=1"], ["seed=1", "teacher.seed=run"], ["seed=5", "teacher.seed=1"]):
        assert stages(command, _config(*words))[0].run == own.run


def test_pretrain_itself_has_the_seed_of_the_run() -> None:
    own = stages("pretrain", _config("seed=1"))[0]
    assert own.config.teacher_seed == own.config.seed == 1
    for words in (["seed=1", "teacher.seed=run"], ["teacher.seed=1"]):
        assert stages("pretrain", _config(*words))[0].run == own.run
    assert stages("pretrain", _config("seeds=[0,1]", "teacher.seed=run")) == stages("pretrain", _config("seeds=[0,1]"))


# As they were when null still meant the run's `seed`: of seed 0, and what `teacher.seed` now says in other words.
IDENTITIES = {
    ("pretrain", ""): "20b0c028",
    ("train", ""): "1ec81e69",
    ("distill", ""): "a3b779f2",
    ("finetune", "loss.beta=0"): "db86e9f0",
    ("pretrain", "seed=1"): "e058f602",
    ("train", "seed=1 teacher.seed=run"): "5b51874c",
    ("distill", "seed=1 teacher.seed=1"): "f6033e27",
    ("pretrain", "seeds=[0,1]"): "89e6d915",
    ("train", "seeds=[0,1] teacher.seed=run"): "eb879262",
    ("finetune", "seeds=[0,1] teacher.seed=run"): "511e293f",
    ("train", "teacher.checkpoint=/x/t.safetensors"): "f7b4c360",
}


def test_identities_of_earlier_versions_stay() -> None:
    found = {(command, words): identity(command, _config(*words.split())) for command, words in IDENTITIES}
    assert found == IDENTITIES


def test_several_seeds_with_one_teacher_are_another_group_than_with_one_each() -> None:
    shared, each = _config("seeds=[0,1]"), _config("seeds=[0,1]", "teacher.seed=run")
    assert identity("train", shared) == identity("train", _config("seeds=[0,1]", "teacher.seed=0"))
    assert len({identity("train", config) for config in (shared, each, _config("seeds=[0,1]", "teacher.seed=1"))}) == 3
    of_shared, of_each = (
        [stages("train", single)[0].config.seed for _, single in runs_of_seeds(pinned("train", config))]
        for config in (shared, each)
    )
    assert (of_shared, of_each) == ([0, 0], [0, 1])


def test_a_named_run_of_an_earlier_version_keeps_its_teacher(tmp_path: Path) -> None:
    """There null was the run's own seed; continued it would have another teacher, so it is refused."""
    directory = RunDirectory(tmp_path / "run")
    directory.begin("train", _config("name=run", "seed=1"), task="transfer")  # as it stood in the file

    def check(*words: str) -> None:
        config = pinned("train", _config("name=run", "seed=1", *words))
        job = Job.plan("train", config)
        directory.check("train", config, job.reads, job.goal.name)

    with pytest.raises(UserError, match=r"holds a run with other settings \(teacher.seed\)"):
        check()
    check("teacher.seed=1")
    check("teacher.seed=run")
