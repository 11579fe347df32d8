"""What a launcher hands to every worker: the order, in plain values that travel between machines."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zskt_dist.config import Config, config_hash, parse_config, teacher_hash
from zskt_dist.runs.directory import RunDirectory, run_directory, teacher_directory
from zskt_dist.runs.locations import absolute, join


@dataclass(frozen=True)
class SynthesisOrder:
    """What `synthesize` is to make of a run.

    Attributes:
        folder: Of the shards, absolute.
        images: N.
        shard_images: Images in a shard; None: about two thousand.
        sources: Iterations of the generator's snapshots that are drawn from, in equal shares.
        fresh: Whether shards that are there already are made anew.
    """

    folder: str
    images: int
    shard_images: int | None
    sources: tuple[int, ...]
    fresh: bool = False


@dataclass(frozen=True)
class Job:
    """One command's run.

    Attributes:
        command: `train`, `pretrain`, `distill`, `finetune`, `evaluate` or `synthesize`.
        config: With absolute paths: workers may start in other folders than the driver.
        hashes: Of the configuration as the user wrote it, for each command.
        directory: The location of the run directory, absolute: a folder that all workers see, or a URI.
        teacher_directory: Likewise, of the teacher that is trained where no checkpoint is given.
        student_directory: Likewise, of the zero-shot run whose student is finetuned.
        launcher: `local` or `ray`, for the record.
        tracking: `{tracking_uri, experiment_id, run_id}` of the MLflow run; None: not tracked live.
        git_commit: Of the code that runs, where it is known.
        synthesis: Of `synthesize`.
    """

    command: str
    config: Config
    hashes: dict[str, str]
    directory: str
    teacher_directory: str
    student_directory: str
    launcher: str
    tracking: dict[str, str] | None = None
    git_commit: str | None = None
    synthesis: SynthesisOrder | None = None

    @classmethod
    def plan(cls, command: str, config: Config) -> "Job":
        """The job of a command, started in the current folder."""
        hashes = {each: config_hash(config, each) for each in ("train", "pretrain", "distill", "finetune")}
        if command != "pretrain" or config.supervised.network == "teacher":
            hashes["pretrain"] = teacher_hash(config)  # the pretraining on the way of any command is the teacher's
        unnamed = config.model_copy(update={"name": None})
        return cls(
            command=command,
            config=absolute_paths(config),
            hashes=hashes,
            directory=absolute(run_directory(config, command).location),
            teacher_directory=absolute(teacher_directory(config).location),
            student_directory=absolute(run_directory(unnamed, "train").location),
            launcher=config.launch.kind,
        )

    @property
    def config_hash(self) -> str:
        return self.hashes[self.command]

    @property
    def role(self) -> str:
        """The network that is trained: `teacher` or `student`."""
        return self.config.supervised.network if self.command == "pretrain" else "student"

    @property
    def teacher_weights(self) -> str | None:
        """The teacher's weights, the user's or those that are made; None where a network learns without one."""
        if self.command == "pretrain":
            return None
        if self.learns_from_pseudo_data:
            return self.config.teacher.checkpoint
        return self.config.teacher.checkpoint or join(self.teacher_directory, "teacher.safetensors")

    @property
    def learns_from_pseudo_data(self) -> bool:
        """Whether there is no generator, and no teacher but one that the student is compared with."""
        return self.command == "train" and self.config.pseudo_data is not None

    @property
    def needs_training_images(self) -> bool:
        """Whether real labelled images are trained on; a zero-shot student never is, its teacher may be."""
        if self.command == "train":
            return self.config.teacher.checkpoint is None and self.config.pseudo_data is None
        return self.command not in ("evaluate", "synthesize")

    def push(self) -> None:
        """Uploads what the stores lack of this job's run and of those made on its way, which it refers to.

        Raises:
            UserError: a store cannot be reached.
        """
        for location in dict.fromkeys([self.teacher_directory, self.student_directory, self.directory]):
            RunDirectory(location).mirror.push()

    @property
    def sees_images_per_class(self) -> int | None:
        """M, where this command's network learns from so many labelled images of each class."""
        learns = self.command in ("distill", "finetune") or (self.command == "pretrain" and self.role == "student")
        return self.config.data.images_per_class if learns else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"config": self.config.model_dump(mode="json")}

    @classmethod
    def evaluation(cls, directory: Path | str, config: Config) -> "Job":
        """The job of measuring a finished run, whose own configuration is `config` but for how it is measured."""
        job = cls.plan("train", config)
        return replace(job, command="evaluate", directory=absolute(directory))

    @classmethod
    def synthesize(cls, directory: Path | str, config: Config, order: SynthesisOrder) -> "Job":
        """The job of making pseudo-data with the generators of a finished run."""
        return replace(cls.evaluation(directory, config), command="synthesize", synthesis=order)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Job":
        order = values["synthesis"] and SynthesisOrder(**values["synthesis"])
        return cls(**values | {"config": parse_config(values["config"]), "synthesis": order})


def absolute_paths(config: Config) -> Config:
    """The configuration with every path made absolute; URIs stay as they are."""
    teacher, data = config.teacher, config.data
    if teacher.checkpoint is not None:
        teacher = teacher.model_copy(update={"checkpoint": absolute(teacher.checkpoint)})
    data = data.model_copy(update={"root": absolute(data.root)})
    finetune = config.finetune
    if finetune.student is not None:
        finetune = finetune.model_copy(update={"student": absolute(finetune.student)})
    update = {"teacher": teacher, "data": data, "finetune": finetune, "runs_dir": absolute(config.runs_dir)}
    if config.pseudo_data is not None:
        update["pseudo_data"] = absolute(config.pseudo_data)
    return config.model_copy(update=update)
