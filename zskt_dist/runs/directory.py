"""The run directory: `runs/<experiment>/<name>/`, where everything about a run is found again."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from zskt_dist.config import Config, config_hash, differing_keys, dump_yaml, parse_config, teacher_hash
from zskt_dist.errors import ConfigError, Interrupted, UserError
from zskt_dist.files import read_json, sha256_of, try_lock, write_atomic, write_json
from zskt_dist.runs.mirror import Mirror, StoreMirror
from zskt_dist.runs.storage import is_uri, join, split, working_copy

Result = dict[str, Any]


class RunDirectory:
    """Paths and small files of one run; knows nothing of what is in them.

    Args:
        location: A folder, or a URI; then all paths are those of its working copy on this machine.

    Raises:
        ConfigError: a URI that cannot be used.
    """

    def __init__(self, location: Path | str) -> None:
        self.location = str(location)
        self.path = path = working_copy(self.location) if is_uri(self.location) else Path(location)
        self.mirror = StoreMirror(self.location, path) if is_uri(self.location) else Mirror()
        """Carries the working copy from and to the store; of a plain folder: does nothing."""
        self.config = path / "config.yaml"
        self.begun = path / "command.json"
        self.result = path / "result.json"
        self.history = path / "history.parquet"
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"
        self.snapshots = path / "snapshots"
        """The generator at several moments of the run."""
        self.evaluation = path / "evaluation"
        self.estimates = self.evaluation / "estimates.json"
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
                f"name={config.name}: {self.location} holds a run of {begun.get('command')}. "
                "Choose another name, or start over with --fresh"
            )
        if (before := self.read_config()) and (keys := differing_keys(before, config)):
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(
                f"name={config.name}: {self.location} holds a run with other settings ({shown}). "
                "Choose another name, or start over with --fresh"
            )

    def sibling(self, name: str) -> "RunDirectory":
        """Another run of the same experiment."""
        return RunDirectory(join(split(self.location)[0], name))

    def begin(self, command: str, config: Config, teacher: str | None, group: str | None = None) -> None:
        """Writes down what this run is, where the weights of its teacher are or will be, and what it belongs to.

        Args:
            group: Name of the directory, beside this one, of several seeds or a sweep; None: as before.

        Raises:
            ConfigError: as `check_files`.
        """
        told, files = read_json(self.begun) or {}, self.check_files(config)
        write_atomic(self.config, dump_yaml(config))
        group = group or told.get("group")
        write_json(self.begun, {"command": command, "teacher": teacher, "group": group, "files": files})

    def check_files(self, config: Config) -> dict[str, str]:
        """The SHA-256 of each file of the user's that a run begins with, by its key; of those on this machine.

        Raises:
            ConfigError: one has changed since the run began, whose student would not be that of the new file.
        """
        told = (read_json(self.begun) or {}).get("files", {})
        files = {"teacher.checkpoint": config.teacher.checkpoint, "finetune.student": config.finetune.student}
        here = {key: sha256_of(Path(file)) for key, file in files.items() if file and Path(file).is_file()}
        for key, sha256 in here.items():
            if told.get(key, sha256) != sha256:
                problem = f"has changed since {self.location} began; choose another name, or start over with --fresh"
                raise ConfigError(key, str(files[key]), problem)
        return told | here

    def group(self) -> "RunDirectory | None":
        """The directory of the several seeds, or of the sweep, that this run belongs to."""
        told = (read_json(self.begun) or {}).get("group")
        return told and self.sibling(told)

    def belong_to(self, group: str) -> None:
        """Makes a run that was begun earlier one of `group`."""
        write_json(self.begun, (read_json(self.begun) or {}) | {"group": group})

    def teacher_weights(self) -> str | None:
        """Where the teacher was when the run began."""
        return (read_json(self.begun) or {}).get("teacher")

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
            UserError: its workers are still running, or its store cannot be reached.
        """
        if not self.path.exists():
            return None
        held = self.try_lock()
        if held is None:
            raise UserError(f"{self.location}: its workers are still running; wait for them or stop them")
        held.close()
        aside = self.path.with_name(f"{self.path.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
        self.mirror.move(aside.name)
        self.path.rename(aside)
        return aside

    def finish(self, result: Mapping[str, Any]) -> None:
        write_json(self.result, result)

    def tell(self, error: UserError) -> None:
        """Leaves an error of a worker for the driver, which is another process."""
        interrupted = [error.iteration, error.iterations, error.unit] if isinstance(error, Interrupted) else None
        write_json(self.failure, {"message": str(error), "interrupted": interrupted})
        self.mirror.attempt(lambda: self.mirror.send(self.failure.name))

    def told(self) -> Any | None:
        """What a worker has told, here or on another machine."""
        self.mirror.attempt(lambda: self.mirror.receive(self.failure.name))
        return read_json(self.failure)

    def raise_told(self) -> None:
        """Raises what a worker has told, if anything."""
        told = self.told()
        if told and told["interrupted"]:
            raise Interrupted(*told["interrupted"])
        if told:
            raise UserError(told["message"])

    def clear_requests(self) -> None:
        """Forgets an earlier stop request and failure; the driver does this before it starts workers."""
        self.stop.unlink(missing_ok=True)
        self.failure.unlink(missing_ok=True)
        self.mirror.attempt(lambda: self.mirror.forget(self.stop.name, self.failure.name))

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
            raise UserError(f"{self.location}: another command is working on this run; wait for it or stop it")
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
    arch = re.sub(r"[^A-Za-z0-9._-]+", "-", config.teacher.arch)[:80]  # `timm:…`, and what an import path may be
    return _in(config, "teachers", f"{arch}-{config.data.name}-{teacher_hash(config)}")


def _in(config: Config, experiment: str, name: str) -> RunDirectory:
    return RunDirectory(join(config.runs_dir, experiment, name))
