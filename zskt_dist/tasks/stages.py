"""What a command runs, as data: the stages that make the weights it needs, and then its own.

Stages are plain values, which travel between machines; nothing heavy is imported.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zskt_dist.config import Config, flatten, parse_config
from zskt_dist.config.inputs import BROUGHT, is_brought
from zskt_dist.config.keys import digest, is_under, leaves_of
from zskt_dist.errors import ConfigError
from zskt_dist.files import sha256_of, sha256_of_all
from zskt_dist.runs.directory import Digest, RunDirectory
from zskt_dist.runs.locations import absolute, join
from zskt_dist.tasks.registry import TASKS, Need, Task, task_of

SEED_IMAGES = "inversion.seed_images"


@dataclass(frozen=True)
class Stage:
    """One task in one run directory.

    Attributes:
        name: Name of the task in the registry.
        config: The configuration with absolute paths, as workers may start in other folders.
        run: Location of the run directory, absolute: a folder that all workers see, or a URI.
        hash: Identity: eight hex digits over everything that can change the result.
        inputs: Locations of the weights that it begins with, by role: the user's, or those that earlier stages make.
        options: Options of the command line besides the configuration.
    """

    name: str
    config: Config
    run: str
    hash: str
    inputs: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        return TASKS[self.name]

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.run)

    @property
    def reads(self) -> tuple[str, ...]:
        """Keys that decide the result, including those that name weights."""
        return (*self.task.reads, *(key for need in self.task.needs for key in need.keys))

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Stage":
        return cls(**values | {"config": parse_config(values["config"])})


def stages(command: str, config: Config) -> list[Stage]:
    """What a command runs in the current folder, the last stage being its own: `train` is pretrain and transfer."""
    found: dict[str, Stage] = {}
    config = pinned(command, config)
    _collect(task_of(command, config), config, found)
    return list(found.values())


def pinned(command: str, config: Config) -> Config:
    """`config` as a run of the command records it: with the seed of its teacher, and the digest of one that is brought.

    A command that needs a teacher has that of seed 0 where `teacher.seed` is null; in a record null means the run's
    `seed`, as in earlier versions. The teacher's own code runs, and torch is imported, only for
    `teacher.checkpoint=none`.

    Raises:
        ConfigError: that code brings no weights (`with_digest`).
    """
    task = task_of(command, config)
    needs = {need.key for need in task.needs}
    if task.role == "teacher" and config.teacher.seed == "run":
        config = _with_teacher_seed(config, None)
    elif "teacher.checkpoint" in needs and config.teacher.seed is None:
        config = _with_teacher_seed(config, 0)
    if config.teacher.checkpoint != BROUGHT or "teacher.checkpoint" not in needs:
        return config
    from zskt_dist.networks.brought import with_digest

    return with_digest(config)


def identity(command: str, config: Config) -> str:
    """Eight hex digits over everything that can change a command's result."""
    return _identity(task_of(command, config), pinned(command, config))


def run_directory(config: Config, command: str) -> RunDirectory:
    """Where a command's run lives: the user's `name`, or one made of its identity."""
    return RunDirectory(_location(task_of(command, config), pinned(command, config)))


def user_files(stage: Stage) -> dict[str, str]:
    """Locations of the weights that the user gives, by key; for a task that trains nothing, of all weights it reads."""
    if not stage.task.trains:
        keys = {"teacher": "teacher.checkpoint"} if stage.config.teacher.checkpoint else {}
        return {keys.get(role, f"{role} weights"): location for role, location in stage.inputs.items()}
    return {need.key: stage.inputs[need.role] for need in stage.task.needs if _named(stage.config, need) is not None}


def user_digests(stage: Stage) -> dict[str, Digest]:
    """Digests of the user's files on this machine, by key, as they are now."""
    files = {key: Path(location) for key, location in user_files(stage).items()}
    weights = {key: Digest(str(path), sha256_of(path)) for key, path in files.items() if path.is_file()}
    return weights | image_digests(stage)


def image_digests(stage: Stage) -> dict[str, Digest]:
    """Digest of the images without labels that the user gives, by key; empty where there are none on this machine."""
    given = stage.config.inversion.seed_images if is_under(SEED_IMAGES, stage.task.reads) else None
    if given is None or not Path(given).exists():
        return {}
    return {SEED_IMAGES: Digest(given, sha256_of_all(Path(given)))}


def _collect(task: Task, config: Config, found: dict[str, Stage]) -> Stage:
    config = _prepared(task, config)
    inputs: dict[str, str] = {}
    for need in task.needs:
        given = _named(config, need)
        if given is not None:
            inputs[need.role] = absolute_weights(given)
        elif need.made_by is not None:
            maker = _collect(*_maker(need.made_by, config), found)
            inputs[need.role] = join(maker.run, f"{need.role}.safetensors")
    run = absolute(_location(task, config))
    if run in found and found[run].name != task.name:
        problem = f"is the run of {found[run].task.command} that {task.command} begins with; choose another name"
        raise ConfigError("name", config.name, problem)
    return found.setdefault(run, Stage(task.name, absolute_paths(config), run, _identity(task, config), inputs))


def _prepared(task: Task, config: Config) -> Config:
    """The configuration with which a task runs: a teacher has its own seed, independent of the student's."""
    if task.role != "teacher" or config.teacher.seed is None:
        return config
    if config.seeds is not None:
        problem = f"makes one teacher, and seeds={list(config.seeds)} are several; use teacher.seed=null"
        raise ConfigError("teacher.seed", config.teacher.seed, problem)
    return _with_teacher_seed(config.model_copy(update={"seed": config.teacher_seed}), None)


def _with_teacher_seed(config: Config, seed: int | None) -> Config:
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"seed": seed})})


def _maker(command: str, config: Config) -> tuple[Task, Config]:
    """The task that makes weights for a run, and its configuration without `name`: such runs are shared."""
    supervised = config.supervised.model_copy(update={"network": "teacher"})
    config = config.model_copy(update={"name": None, "seeds": None, "supervised": supervised})
    return task_of(command, config), config


def _named(config: Config, need: Need) -> str | None:
    """The location that the user gives."""
    section, _, key = need.key.partition(".")
    location: str | None = getattr(getattr(config, section), key)
    return location


def _identity(task: Task, config: Config) -> str:
    config = _prepared(task, config)
    values: dict[str, Any] = {"task": task.name, **leaves_of(config, task.reads)}
    for need in task.needs:
        location = _named(config, need)
        if location is not None:
            values |= leaves_of(config, need.keys)
        elif need.made_by is not None:
            values[need.key] = _identity(*_maker(need.made_by, config))
            if config.seeds is not None and config.teacher.seed != "run":  # they share a teacher
                values["teacher.seed"] = config.teacher_seed
    return digest(values)


def _location(task: Task, config: Config) -> str:
    if task.role == "teacher":  # shared by all experiments
        arch = re.sub(r"[^A-Za-z0-9._-]+", "-", config.teacher.arch)[:80]  # `timm:…`, and what an import path may be
        name = config.name or f"{arch}-{config.data.name}-{_identity(task, config)}"
        return join(config.runs_dir, "teachers", name)
    name = config.name or f"{config.experiment}-{task.label}{_identity(task, config)}"
    return join(config.runs_dir, config.experiment, name)


def absolute_paths(config: Config) -> Config:
    """The configuration with every path made absolute; URIs stay as they are."""
    leaves = dict(flatten(config))
    paths: dict[str, dict[str, str]] = {}
    for key in ("teacher.checkpoint", "finetune.student", "data.root", "inversion.seed_images"):
        section, _, name = key.partition(".")
        if leaves[key] is not None:
            paths.setdefault(section, {})[name] = absolute_weights(leaves[key])
    sections = {name: getattr(config, name).model_copy(update=update) for name, update in paths.items()}
    own = {key: absolute(leaves[key]) for key in ("runs_dir", "pseudo_data") if leaves[key] is not None}
    return config.model_copy(update=sections | own)


def absolute_weights(location: str) -> str:
    """The absolute path of a file of weights; URIs, and what stands for those that a network brings, as they are."""
    return location if is_brought(location) else absolute(location)
