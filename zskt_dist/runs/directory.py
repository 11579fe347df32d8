"""The run directory: `runs/<experiment>/<name>/`, where everything about a run is found again."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from zskt_dist.config import Config, differing_keys, dump_yaml, read_config
from zskt_dist.errors import ConfigError, DamagedFileError, Interrupted, UserError
from zskt_dist.files import read_bytes, read_json, remove_leftovers, try_lock, write_atomic, write_json
from zskt_dist.runs.mirror import Mirror
from zskt_dist.runs.locations import absolute, check, is_uri, join, lies_in, split, working_copy
from zskt_dist.runs.result import misfit
from zskt_dist.runs.sums import problem_of

log = logging.getLogger(__name__)

Result = dict[str, Any]


class Digest(NamedTuple):
    """A file that the user gives: its location and the SHA-256 of its content."""

    location: str
    sha256: str


class Differs(NamedTuple):
    """Dotted keys that tell a run from others, for its name in MLflow."""

    typed: tuple[str, ...] = ()
    """On the command line."""
    swept: tuple[str, ...] = ()
    """By a sweep, or by several seeds."""


class RunDirectory:
    """Paths and small files of one run; their content is decided elsewhere.

    Args:
        location: A folder, or a URI; then all paths are those of its working copy on this machine.

    Raises:
        ConfigError: a URI that cannot be used.
    """

    def __init__(self, location: Path | str) -> None:
        self.location = str(location)
        self.path = path = working_copy(self.location) if is_uri(self.location) else Path(location)
        self.mirror = Mirror(self.location, path)
        """Copies between the store and the working copy; does nothing for a plain folder."""
        self.config = path / "config.yaml"
        self.begun = path / "command.json"
        self.result = path / "result.json"
        self.page = path / "index.html"
        """One page about the finished run."""
        self.history = path / "history.parquet"
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"
        self.snapshots = path / "snapshots"
        """The generator at several moments of the run."""
        self.pool = path / "pool"
        """The images of an inversion, round by round."""
        self.evaluation = path / "evaluation"
        self.estimates = self.evaluation / "estimates.json"
        self.subset = path / "subset.json"
        """Which training images a run with some images per class has seen."""
        self.progress = path / "progress.json"
        self.tracking = path / "mlflow.json"
        self.stop = path / "stop"
        """While this file exists, the workers save and stop."""
        self.failure = path / "failure.json"
        """The error of a worker, which the driver shows to the user."""

    def weights(self, role: str) -> Path:
        """`student.safetensors` or `teacher.safetensors`."""
        return self.path / f"{role}.safetensors"

    def finished(self) -> Result | None:
        """The result of a finished run; one that this package has not written so counts as missing, with a warning."""
        result = read_json(self.result)
        if result is None or result.get("status") != "finished":
            return None
        if wrong := misfit(result):
            log.warning("%s is damaged (%s), and counts as missing", self.result, wrong)
            return None
        return result

    def whole(self, *, quiet: bool = False) -> Result | None:
        """The result of a finished run whose network is there as it was written; raises the errors of `problem_of`.

        Args:
            quiet: True if the caller does not act on it, so the user need not know why the run counts as open.
        """
        result = self.finished()
        if result is None:
            return None
        if "seeds" in result:
            return result if all(self.sibling(name).whole(quiet=True) for name in result["runs"]) else None
        path = self._trained(result)
        problem = problem_of(path, read_bytes(path))
        if problem is None or quiet:
            return None if problem else result
        if not (self.mirror.is_stored or any(self.checkpoints.glob("*.pt"))):
            remedy = "and there is no checkpoint to make it from; restore it, or start over with --fresh"
            raise DamagedFileError(f"{path} {problem}, {remedy}")
        log.warning("%s %s; the run goes on from its last checkpoint and makes it again", path, problem)
        return None

    def _trained(self, result: Result) -> Path:
        """Weights of the network that a single run has trained."""
        return self.weights("student" if result.get("student") else "teacher")

    def record_is_partial(self) -> bool:
        """True if MLflow lacks something that is here: no store was reached, an upload was cut short, or it
        has the metrics under the names of an earlier version alone.
        """
        known = read_json(self.tracking)
        return known is not None and not (known.get("complete") and known.get("grouped"))

    def check(self, command: str, config: Config, reads: Sequence[str] = ("",), task: str | None = None) -> None:
        """Raises UserError where what is here belongs to a run of another command or configuration.

        Args:
            reads: Keys that decide the result.
            task: The task that the command stands for with this configuration.
        """
        begun = read_json(self.begun)
        if begun:
            pairs = ((begun.get("command"), command), (begun.get("task"), task))
            other = next((before for before, now in pairs if before and now and before != now), None)
            if other is not None:
                raise UserError(
                    f"name={config.name}: {self.location} holds a run of {other}. "
                    "Choose another name, or start over with --fresh"
                )
        if (before := self.read_config()) and (keys := differing_keys(before, config, reads)):
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(
                f"name={config.name}: {self.location} holds a run with other settings ({shown}). "
                "Choose another name, or start over with --fresh"
            )

    def sibling(self, name: str) -> "RunDirectory":
        """Another run of the same experiment; raises UserError for a name that leads elsewhere."""
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
            raise UserError(f"{self.location} names {name!r} as a run beside it, and that lies elsewhere")
        return RunDirectory(join(split(self.location)[0], name))

    def begin(
        self,
        command: str,
        config: Config,
        teacher: str | None = None,
        *,
        task: str | None = None,
        group: str | None = None,
        differs: Differs | None = None,
        files: Mapping[str, Digest] = MappingProxyType({}),
    ) -> None:
        """Records what this run is, where its teacher's weights are or will be, and which group it belongs to.

        A result and a page that are there are removed: the network is to be made again (`whole`).

        Args:
            group: Name of the directory, beside this one, of several seeds or a sweep; None: stays as it is.
            differs: None: stays as it is.
            files: The user's files that it begins with, by key.

        Raises:
            ConfigError: a file has changed (`check_files`).
        """
        self.check_files(files)
        self.result.unlink(missing_ok=True)
        self.page.unlink(missing_ok=True)
        before = read_json(self.begun) or {}
        known = self._files_then() | {key: digest.sha256 for key, digest in files.items()}
        write_atomic(self.config, dump_yaml(config))
        group = group or before.get("group")
        about = {"command": command, "task": task, "teacher": teacher, "group": group, "files": known}
        write_json(self.begun, about | (differs or self.differs())._asdict())

    def check_files(self, files: Mapping[str, Digest]) -> None:
        """Raises ConfigError where a file has changed since the run began, as the result would change too."""
        before = self._files_then()
        for key, (location, sha256) in files.items():
            if before.get(key, sha256) != sha256:
                problem = f"has changed since {self.location} began; choose another name, or start over with --fresh"
                raise ConfigError(key, location, problem)

    def _files_then(self) -> dict[str, str]:
        """SHA-256 of the user's files that the run began with, by key."""
        files = (read_json(self.begun) or {}).get("files")
        return files if isinstance(files, dict) else {}

    def group(self) -> "RunDirectory | None":
        """The directory of the several seeds, or of the sweep, that this run belongs to."""
        name = (read_json(self.begun) or {}).get("group")
        return self.sibling(name) if name else None

    def belong_to(self, group: str, differs: Differs) -> None:
        """Adds a run that was begun earlier to `group`."""
        differs = differs._replace(typed=self.differs().typed)
        write_json(self.begun, (read_json(self.begun) or {}) | {"group": group} | differs._asdict())

    def differs(self) -> Differs:
        """Keys that tell the run from others; none where an earlier version has begun it."""
        begun = read_json(self.begun) or {}
        return Differs(tuple(begun.get("typed", ())), tuple(begun.get("swept", ())))

    def teacher_weights(self) -> str | None:
        """Where the teacher was when the run began."""
        return (read_json(self.begun) or {}).get("teacher")

    def read_config(self) -> Config | None:
        """The configuration the run was started with."""
        return read_config(self.config) if self.config.exists() else None

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

    def leave_failure(self, error: UserError) -> None:
        """Leaves an error of a worker for the driver, which is another process."""
        interrupted = [error.iteration, error.iterations, error.unit] if isinstance(error, Interrupted) else None
        write_json(self.failure, {"message": str(error), "interrupted": interrupted})
        self.mirror.attempt(lambda: self.mirror.send(self.failure.name))

    def failure_left(self) -> Any | None:
        """The error that a worker has left, here or on another machine."""
        self.mirror.attempt(lambda: self.mirror.receive(self.failure.name))
        return read_json(self.failure)

    def raise_failure(self) -> None:
        """Raises the error that a worker has left, if any."""
        told = self.failure_left()
        if told and told["interrupted"]:
            raise Interrupted(*told["interrupted"])
        if told:
            raise UserError(told["message"])

    def clear_requests(self) -> None:
        """Forgets an earlier stop request and failure; the driver does this before it starts workers."""
        self.stop.unlink(missing_ok=True)
        self.failure.unlink(missing_ok=True)
        self.mirror.attempt(lambda: self.mirror.forget(self.stop.name, self.failure.name))

    def check_links(self) -> None:
        """Raises UserError where a link in the directory leads out of it: to a file that is not the run's.

        Checkpoints may lie on another disk: nobody but the training reads them.
        """
        root = self.path.resolve()
        for folder, folders, files in os.walk(self.path):
            for path in (Path(folder, name) for name in (*folders, *files)):
                if path.is_symlink() and path != self.checkpoints and not lies_in(root, path):
                    problem = f"{path} is a link out of the run, to {path.readlink()}"
                    raise UserError(f"{problem}; put the file itself there, or remove the link")

    def try_lock(self) -> IO[str] | None:
        """Locks the directory for one group of workers until rank 0 closes this file or ends; None: others hold it."""
        return try_lock(self.path / ".lock")

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Locks the run for one command; the lock file lies beside the directory, which may be moved aside.

        Raises:
            UserError: another command works on it.
        """
        held = try_lock(self.path.with_name(f".{self.path.name}.lock"))
        if held is None:
            raise UserError(f"{self.location}: another command is working on this run; wait for it or stop it")
        with held:
            remove_leftovers(self.path)
            yield


def find_run(location: Path | str, key: str = "RUN_DIR", *, own: bool = False) -> RunDirectory:
    """The run at a location, with all that its store holds except checkpoints.

    Args:
        key: Argument or key that gives the location, for messages.
        own: True if it is the user's, whose links may lead anywhere.

    Raises:
        ConfigError: a URI that cannot be used or reached; UserError: a link leads out of the run.
    """
    check(str(location), key)
    directory = RunDirectory(absolute(location))
    directory.mirror.pull(checkpoints=False)
    if not own:
        directory.check_links()
    return directory


def find_finished(location: str, verb: str, *, single: bool = False) -> tuple[RunDirectory, Result]:
    """The finished run at a location and its result, for a verb that works on it.

    Args:
        single: True if the verb needs networks, which the mean of several seeds does not have.

    Raises:
        UserError: no finished run, or several seeds; ConfigError: a URI that cannot be used or reached.
    """
    directory = find_run(location)
    result = directory.finished()
    if result is None:
        raise UserError(f"{location}: no finished run; {verb} takes a folder with a result.json, runs/EXPERIMENT/NAME")
    if single and "seeds" in result:
        runs = ", ".join(directory.sibling(name).location for name in result["runs"])
        raise UserError(f"{location} holds the mean of several seeds, and no network; {verb} one of {runs}")
    return directory, result


def check_networks(directory: RunDirectory, result: Result) -> None:
    """Raises UserError where a result says nothing of networks, so it is not that of a run that has trained one."""
    if lacking := [key for key in ("command", "teacher", "student") if key not in result]:
        raise UserError(f"{directory.result} lacks {', '.join(lacking)}; it is not the result of a run")


@contextmanager
def open_run(
    location: Path | str, *, fresh: bool = False, announce: Callable[[str], object] = print
) -> Iterator[RunDirectory]:
    """The run at a location, locked for this command; earlier requests to stop are removed.

    Args:
        fresh: Keep the earlier run under another name and start over.
        announce: Shows that name to the user.

    Raises:
        UserError: another command works on it, or its store cannot be reached.
    """
    directory = RunDirectory(absolute(location))
    with directory.driven():
        directory.mirror.pull(checkpoints=False)
        if fresh and (aside := directory.move_aside()):
            announce(f"The earlier run is kept as {aside}")
        directory.clear_requests()
        yield directory
