"""What a launcher hands to every worker: plain values that travel between machines."""

from dataclasses import dataclass, field
from typing import Any

from zskt_dist.config import Config
from zskt_dist.runs.directory import Digest, RunDirectory
from zskt_dist.tasks.stages import Stage, stages


@dataclass(frozen=True)
class Job:
    """One command's stages, done in order; the last one is the command's own.

    Attributes:
        launcher: `local` or `ray`, for the record.
        tracking: `{tracking_uri, experiment_id, run_id}` of the MLflow run of the last stage; None: not tracked live.
        git_commit: Commit of the code that runs, where it is known.
        digests: Files of the user's that the stages begin with, by key, as they were read before the start.
    """

    stages: tuple[Stage, ...]
    launcher: str
    tracking: dict[str, str] | None = None
    git_commit: str | None = None
    digests: dict[str, Digest] = field(default_factory=dict)

    @classmethod
    def plan(cls, command: str, config: Config) -> "Job":
        """The job of a command, started in the current folder."""
        return cls(tuple(stages(command, config)), config.launch.kind)

    @property
    def goal(self) -> Stage:
        """The command's own stage."""
        return self.stages[-1]

    @property
    def config(self) -> Config:
        return self.goal.config

    @property
    def directory(self) -> RunDirectory:
        return self.goal.directory

    @property
    def needs_training_images(self) -> bool:
        """True if real labelled images are trained on; a zero-shot student never is, its teacher may be."""
        return any(stage.task.real_images for stage in self.stages)

    @property
    def reads(self) -> tuple[str, ...]:
        """Keys that decide the result."""
        return tuple(key for stage in self.stages for key in stage.reads)

    def push(self) -> None:
        """Uploads what the stores lack of this job's run and of those made on its way, which it refers to.

        Raises:
            UserError: a store cannot be reached.
        """
        for location in dict.fromkeys(stage.run for stage in self.stages):
            RunDirectory(location).mirror.push()

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Job":
        digests = {key: Digest(*digest) for key, digest in values["digests"].items()}
        return cls(**values | {"stages": tuple(map(Stage.from_dict, values["stages"])), "digests": digests})
