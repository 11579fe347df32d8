"""The run directory: `runs/<experiment>/<name>/`, where everything about a run is found again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from zskt_dist.config import Config, config_hash, differing_keys, dump_yaml, parse_config, teacher_hash
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.files import read_json, try_lock, write_atomic, write_json

Result = dict[str, Any]


class RunDirectory:
    """Paths and small files of one run; knows nothing of what is in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.begun = path / "command.json"
        self.result = path / "result.json"
        self.history = path / "history.parquet"
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"
        self.snapshots = path / "snapshots"
        """The generator at several moments of the run."""
        self.evaluation = path / "evaluation"
        self.subset = path / "subset.json"
        """Which training images a run with some images per class has seen."""
        self.progress = path / "progress.json"
        self.tracking = path / "mlflow.json"
        self.stop = path / "stop"
        """Its existence asks the workers to save and stop."""
        self.failure = path / "failure.json"
        """What a worker has to tell the user, for the driver to say."""

    def weights(self, role: str) -> Path:
        """`student.safetensors` or `teacher.safetensors`."""
        return self.path / f"{role}.safetensors"

    def finished(self) -> Result | None:
        """The result of a finished run."""
        result = read_json(self.result)
        return result if isinstance(result, dict) and result.get("status") == "finished" else None

    def record_is_partial(self) -> bool:
        """Whether an MLflow run was opened and not everything has been uploaded to it."""
        known = read_json(self.tracking)
        return isinstance(known, dict) and not known.get("complete", False)

    def check(self, command: str, config: Config) -> None:
        """Whether `command` with `config` may continue what is here.

        Raises:
            UserError: the directory belongs to a run of another command or configuration.
        """
        begun = read_json(self.begun)
        if isinstance(begun, dict) and begun.get("command") != command:
            raise UserError(
                f"name={config.name}: {self.path} holds a run of {begun.get('command')}. "
                "Choose another name, or start over with --fresh"
            )
        if (before := self.read_config()) and (keys := differing_keys(before, config)):
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(
                f"name={config.name}: {self.path} holds a run with other settings ({shown}). "
                "Choose another name, or start over with --fresh"
            )

    def begin(self, command: str, config: Config, teacher: Path | None, group: Path | None = None) -> None:
        """Writes down what this run is, where the weights of its teacher are or will be, and the seeds it belongs to.

        Args:
            group: Run directory of several seeds; None: as before.
        """
        group = group or self.group()
        write_atomic(self.config, dump_yaml(config))
        write_json(
            self.begun,
            {"command": command, "teacher": teacher and str(teacher), "group": group and group.name},
        )

    def group(self) -> Path | None:
        """The directory, beside this one, of the several seeds this run belongs to."""
        told = (read_json(self.begun) or {}).get("group")
        return told and self.path.with_name(told)

    def join(self, group: Path) -> None:
        """Makes a run that was begun earlier one of `group`'s seeds."""
        write_json(self.begun, (read_json(self.begun) or {}) | {"group": group.name})

    def teacher_weights(self) -> Path | None:
        """Where the teacher was when the run began."""
        told = (read_json(self.begun) or {}).get("teacher")
        return told and Path(told)

    def read_config(self) -> Config | None:
        """The configuration the run was started with."""
        if not self.config.exists():
            return None
        try:
            return parse_config(yaml.safe_load(self.config.read_text(encoding="utf-8")))
        except (UserError, yaml.YAMLError) as error:
            raise UserError(f"{self.config} cannot be read ({error}); start over with --fresh") from None

    def move_aside(self) -> Path | None:
        """Renames an existing directory, so that the run starts over and nothing is lost.

        Raises:
            UserError: its workers are still running.
        """
        if not self.path.exists():
            return None
        held = self.try_lock()
        if held is None:
            raise UserError(f"{self.path}: its workers are still running; wait for them or stop them")
        held.close()
        aside = self.path.with_name(f"{self.path.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
        self.path.rename(aside)
        return aside

    def finish(self, result: Result) -> None:
        write_json(self.result, result)

    def tell(self, error: UserError) -> None:
        """Leaves an error of a worker for the driver, which is another process."""
        interrupted = [error.iteration, error.iterations] if isinstance(error, Interrupted) else None
        write_json(self.failure, {"message": str(error), "interrupted": interrupted})

    def raise_told(self) -> None:
        """Raises what a worker has told, if anything."""
        told = read_json(self.failure)
        if told and told["interrupted"]:
            raise Interrupted(*told["interrupted"])
        if told:
            raise UserError(told["message"])

    def clear_requests(self) -> None:
        """Forgets an earlier stop request and failure; the driver does this before it starts workers."""
        self.stop.unlink(missing_ok=True)
        self.failure.unlink(missing_ok=True)

    def try_lock(self) -> IO[str] | None:
        """An open file: one group of workers at a time writes here, until rank 0 closes the file or ends."""
        return try_lock(self.path / ".lock")

    @contextmanager
    def driven(self) -> Iterator[None]:
        """One command at a time drives a run; the lock lies beside the directory, which may be moved aside.

        Raises:
            UserError: another command is at it.
        """
        held = try_lock(self.path.with_name(f".{self.path.name}.lock"))
        if held is None:
            raise UserError(f"{self.path}: another command is working on this run; wait for it or stop it")
        with held:
            yield


def run_directory(config: Config, command: str) -> RunDirectory:
    """Where a command's run lives: the user's `name`, or one made of the configuration's hash."""
    if command == "pretrain" and config.supervised.network == "teacher":
        return teacher_directory(config) if config.name is None else _in(config, "teachers", config.name)
    if config.name is not None:
        return _in(config, config.experiment, config.name)
    label = {"train": "", "pretrain": "scratch-"}.get(command, f"{command}-")
    return _in(config, config.experiment, f"{config.experiment}-{label}{config_hash(config, command)}")


def teacher_directory(config: Config) -> RunDirectory:
    """Where the teacher of a configuration is cached: by what made it, so that runs that need the same one share it."""
    return _in(config, "teachers", f"{config.teacher.arch}-{config.data.name}-{teacher_hash(config)}")


def _in(config: Config, experiment: str, name: str) -> RunDirectory:
    return RunDirectory(Path(config.runs_dir) / experiment / name)
