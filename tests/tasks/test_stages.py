"""What makes a run what it is, which stages a command has, and where they run."""

import subprocess
import sys
from pathlib import Path

import pytest

from zskt_dist.config import Config, load_config
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.registry import TASKS
from zskt_dist.tasks.stages import Stage, identity, run_directory, stages
from zskt_dist.training.job import Job


def _config(*overrides: str) -> Config:
    return load_config(None, overrides)


@pytest.mark.parametrize(
    ("command", "overrides", "names"),
    [
        ("train", [], ["pretrain", "transfer"]),
        ("train", ["teacher.checkpoint=t.safetensors"], ["transfer"]),
        ("train", ["pseudo_data=folder", "loss.beta=0"], ["pseudo_data"]),
        ("pretrain", [], ["pretrain"]),
        ("pretrain", ["supervised.network=student"], ["scratch"]),
        ("distill", ["supervised.network=student"], ["pretrain", "distill"]),
        ("finetune", [], ["pretrain", "transfer", "finetune"]),
        ("finetune", ["finetune.student=s.safetensors"], ["pretrain", "finetune"]),
        ("finetune", ["finetune.student=s.safetensors", "teacher.checkpoint=t.pt"], ["finetune"]),
        ("finetune", ["pseudo_data=folder", "loss.beta=0"], ["pretrain", "pseudo_data", "finetune"]),
    ],
)
def test_stages_of_a_command(command: str, overrides: list[str], names: list[str]) -> None:
    found = stages(command, _config("name=mine", *overrides))
    assert [stage.name for stage in found] == names
    made = {f"{stage.run}/{stage.task.role}.safetensors" for stage in found[:-1]}
    given = {str(Path(name).absolute()) for name in ("t.safetensors", "s.safetensors", "t.pt")}
    assert all(set(stage.inputs.values()) <= made | given for stage in found), "what a stage begins with is there"
    assert found[-1].run.endswith("/mine"), "runs on the way have no name of the user's"
    assert all(not stage.run.endswith("/mine") for stage in found[:-1])


def test_a_stage_on_the_way_is_the_run_of_its_own_command() -> None:
    config = _config("name=mine", "supervised.network=student", "seed=3", "teacher.seed=7")
    teacher, student, _ = stages("finetune", config)
    own = _config("seed=7")
    assert teacher.run == stages("pretrain", own)[-1].run
    assert teacher.config.seed == 7
    assert student.run == stages("train", _config("seed=3", "teacher.seed=7"))[-1].run
    assert student.inputs == {"teacher": f"{teacher.run}/teacher.safetensors"}


def test_a_file_is_the_same_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    paths = ("t.safetensors", "./t.safetensors", "../project/t.safetensors", str(tmp_path / "project/t.safetensors"))
    for key, command, rest in (
        ("teacher.checkpoint", "train", []),
        ("finetune.student", "finetune", []),
        ("pseudo_data", "train", ["loss.beta=0"]),
    ):
        assert len({identity(command, _config(f"{key}={path}", *rest)) for path in paths}) == 1
        assert identity(command, _config(f"{key}=other", *rest)) != identity(
            command, _config(f"{key}={paths[0]}", *rest)
        )
    uri = "s3://bucket/t.safetensors"
    here = identity("train", _config(f"teacher.checkpoint={uri}"))
    monkeypatch.chdir(tmp_path)
    assert identity("train", _config(f"teacher.checkpoint={uri}")) == here
    directory = RunDirectory(tmp_path / "run")
    directory.begin("train", _config("name=run", "teacher.checkpoint=t.safetensors"), task="transfer")
    again = _config("name=run", f"teacher.checkpoint={tmp_path / 't.safetensors'}")
    directory.check("train", again, Job.plan("train", again).reads, "transfer")


def test_stages_travel() -> None:
    for stage in stages("finetune", _config("data.mean=[0.5]", "data.std=[0.5]")):
        assert Stage.from_dict(stage.to_dict()) == stage


def test_names_of_runs() -> None:
    hash = identity("distill", Config())
    assert run_directory(Config(), "distill").location == f"runs/digits/digits-distill-{hash}"
    teacher = run_directory(_config("teacher.arch=timm:resnet18.a1_in1k"), "pretrain").path
    assert teacher.parent.name == "teachers"
    assert teacher.name.startswith("timm-resnet18.a1_in1k-digits-")


def test_what_tasks_read_exists() -> None:
    known = list(Config.model_fields)
    for task in TASKS.values():
        for key in task.reads:
            section, _, leaf = key.partition(".")
            assert section in known, key
            assert not leaf or leaf in type(getattr(Config(), section)).model_fields, key


CHANGES_THE_RESULT = [
    "loss.beta=0",
    "seed=1",
    "iterations=999",
    "student.arch=wrn-16-1",
    "launch.workers=2",
    "launch.kind=ray",
    "generator.channels=[128,65]",
    "data.mean=[0.5] data.std=[0.5]",
    "evaluation.every=1",
    "teacher.checkpoint=teacher.safetensors",
    "engine.micro_batch=8",
    "data.image_shape=[1,8,8]",
    "data.num_classes=10",
    "loss.taps=none",
    "loss.resize_maps=true",
]
CHANGES_ONLY_THE_PLACE = [
    "name=other",
    "runs_dir=elsewhere",
    "tracking.uri=none",
    "tracking.log_every=1",
    "checkpoint.every=7",
    "checkpoint.keep=9",
    "launch.max_failures=0",
    "data.download=true",
    "engine.activation_checkpointing=true",
]


@pytest.mark.parametrize("overrides", CHANGES_THE_RESULT)
def test_run_identity_changes(overrides: str) -> None:
    assert identity("train", _config(*overrides.split())) != identity("train", Config())


@pytest.mark.parametrize("override", CHANGES_ONLY_THE_PLACE)
def test_run_identity_stays(override: str) -> None:
    assert _config(override) != Config()
    assert identity("train", _config(override)) == identity("train", Config())


def test_micro_batches_are_of_the_zero_shot_run_alone() -> None:
    micro = _config("engine.micro_batch=8")
    for command, same in (("train", False), ("finetune", False), ("distill", True), ("pretrain", True)):
        assert (identity(command, micro) == identity(command, Config())) is same


@pytest.mark.parametrize("command", ["distill", "pretrain"])
def test_supervised_runs_are_known_by_their_length(command: str) -> None:
    assert identity(command, _config("iterations=7")) != identity(command, Config())
    assert identity(command, _config("iterations=7")) == identity(command, _config("supervised.iterations=7"))


def test_run_identity_of_equal_values_written_differently() -> None:
    spellings = (["loss.beta=3", "seed=2"], ["seed=2", "loss.beta=3.0"], ["loss.beta=0.3e1", "seed=2"])
    hashes = {identity("train", _config(*overrides)) for overrides in spellings}
    assert len(hashes) == 1
    assert len(hashes.pop()) == 8


def test_identities_are_the_same_in_another_process_that_loads_no_torch() -> None:
    program = (
        "import sys; from zskt_dist.config import Config; from zskt_dist.tasks.stages import identity\n"
        "print(identity('train', Config()), identity('finetune', Config())); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [identity("train", Config()), identity("finetune", Config())]


@pytest.mark.parametrize(
    "override",
    [
        "loss.beta=0",
        "student.arch=wrn-16-1",
        "launch.workers=2",
        "launch.kind=ray",
        "transfer.student_steps=3",
        "generator.z_dim=3",
        "optimizer.student_lr=1",
        "batch_size=64",
        "name=other",
        "experiment=other",
        "runs_dir=elsewhere",
        "data.download=true",
        "evaluation.every=1",
        "teacher.checkpoint=teacher.safetensors",
        "engine.micro_batch=8",
        "engine.activation_checkpointing=true",
        "data.image_shape=[1,8,8]",  # which the data set has, or it is refused
    ],
)
def test_teacher_identity_stays(override: str) -> None:
    assert _config(override) != Config()
    assert identity("pretrain", _config(override)) == identity("pretrain", Config())


@pytest.mark.parametrize(
    "override",
    [
        "teacher.arch=wrn-40-2",
        "seed=1",
        "data.name=mnist",
        "data.num_classes=9",
        "data.augment=none",
        "supervised.learning_rate=0.2",
        "supervised.iterations=7",
        "iterations=7",  # as long as `supervised.iterations` is null
        "engine.batch_norm=sync",
    ],
)
def test_teacher_identity_changes(override: str) -> None:
    assert identity("pretrain", _config(override)) != identity("pretrain", Config())


def test_teacher_identity_with_its_own_iterations() -> None:
    alone = identity("pretrain", _config("supervised.iterations=300"))
    assert identity("pretrain", _config("supervised.iterations=300", "iterations=7")) == alone
    assert identity("pretrain", _config("iterations=300")) != identity("pretrain", Config())


def test_precision_belongs_to_the_transfer_alone() -> None:
    one, other = load_config(None), load_config(None, ["speed.precision=bfloat16"])
    assert identity("train", one) != identity("train", other)
    assert identity("pretrain", one) == identity("pretrain", other)
    assert all(identity(command, one) == identity(command, other) for command in ("pretrain", "distill"))


PSEUDO = ("pseudo_data=folder", "loss.beta=0")


@pytest.mark.parametrize(
    "override",
    [
        "teacher.arch=wrn-40-2",
        "supervised.iterations=3",
        "generator.z_dim=7",
        "transfer.student_steps=3",
        "optimizer.generator_lr=1",
        "generator_terms.diversity=1",
        "loss.attention=l2",
        "loss.taps=none",
        "loss.resize_maps=true",
        "data.augment=none",
    ],
)
def test_a_student_of_pseudo_data_is_known_by_what_it_learns_from(override: str) -> None:
    """Neither a generator nor a teacher's training is part of it."""
    assert identity("train", _config(*PSEUDO, override)) == identity("train", _config(*PSEUDO))


@pytest.mark.parametrize(
    "override",
    [
        "pseudo_data=other",
        "pseudo_data=null",
        "iterations=7",
        "optimizer.student_lr=1",
        "loss.temperature=2",
        "student.arch=lenet",
        "seed=1",
        "teacher.checkpoint=t.safetensors",
        "engine.micro_batch=3",
    ],
)
def test_what_changes_a_student_of_pseudo_data_changes_its_hash(override: str) -> None:
    assert identity("train", _config(*PSEUDO, override)) != identity("train", _config(*PSEUDO))


@pytest.mark.parametrize("command", ["distill", "pretrain"])
def test_other_commands_do_not_look_at_pseudo_data(command: str) -> None:
    assert identity(command, _config(*PSEUDO)) == identity(command, _config("loss.beta=0"))


def test_several_teachers_are_no_single_one() -> None:
    several = stages("pretrain", _config("seeds=[0,1]"))[-1]
    assert several.run != stages("pretrain", _config())[-1].run
    assert stages("train", _config("seeds=[0,1]"))[0].run == stages("pretrain", _config())[-1].run
    with pytest.raises(ConfigError, match=r"teacher.seed=7: makes one teacher, and seeds=\[0, 1\] are several"):
        stages("pretrain", _config("seeds=[0,1]", "teacher.seed=7"))


def test_a_name_is_not_that_of_a_run_on_the_way() -> None:
    """Else the student would pass for the finetuned one."""
    name = stages("train", Config())[-1].directory.path.name
    with pytest.raises(ConfigError, match=f"name='{name}': is the run of train that finetune begins with"):
        stages("finetune", _config(f"name={name}"))


@pytest.mark.parametrize(
    ("command", "before", "now", "key"),
    [
        ("pretrain", ["iterations=7"], ["iterations=8"], "iterations"),
        ("distill", ["supervised.iterations=7"], ["supervised.iterations=8"], "supervised.iterations"),
        ("train", ["teacher.seed=1"], ["teacher.seed=2"], "teacher.seed"),
        ("train", ["teacher.checkpoint=t"], [], "teacher.checkpoint"),
        ("finetune", [], ["loss.beta=0"], "loss.beta"),
    ],
)
def test_a_named_run_notices_other_settings(
    command: str, before: list[str], now: list[str], key: str, tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.begin(command, _config("name=run", *before))
    job = Job.plan(command, _config("name=run", *now))
    with pytest.raises(UserError, match=rf"holds a run with other settings \({key}"):
        directory.check(command, _config("name=run", *now), job.reads, job.goal.name)
    again = Job.plan(command, _config("name=run", *before, "launch.workers=2", "supervised.network=student"))
    directory.check(command, _config("name=run", *before), again.reads, None)


def test_a_named_run_notices_another_task_of_its_command(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    config = _config("name=run", "pseudo_data=folder", "loss.beta=0")
    directory.begin("train", config, task="pseudo_data")
    job = Job.plan("train", _config("name=run", "loss.beta=0"))
    with pytest.raises(UserError, match="holds a run of pseudo_data"):
        directory.check("train", config, job.reads, job.goal.name)


@pytest.mark.parametrize(("name", "reads"), [("mnist", True), ("parquet", True), ("digits", False)])
def test_the_folder_of_the_data_counts_where_it_is_read(name: str, reads: bool) -> None:
    here, there = (_config(f"data.name={name}", f"data.root={root}") for root in ("a", "b"))
    assert all((identity(command, here) != identity(command, there)) is reads for command in ("train", "pretrain"))


def test_a_relative_folder_of_images_is_that_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two projects with one `runs_dir` may both call their images `images`: these are two data sets."""

    def hash_in(folder: str, root: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        return identity("train", load_config(None, ["data.name=parquet", f"data.root={root}"]))

    assert hash_in("one", "images") != hash_in("two", "images")
    assert hash_in("one", "images") == hash_in("two", str(tmp_path / "one" / "images"))
