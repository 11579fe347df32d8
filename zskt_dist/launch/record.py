"""The MLflow run of a job: opened by the driver, fed by rank 0, completed from the run directory."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from zskt_dist.config import Config, flatten
from zskt_dist.errors import UserError
from zskt_dist.files import read_json, write_json
from zskt_dist.launch.environment import is_follower
from zskt_dist.runtime.directory import RunDirectory
from zskt_dist.runtime.job import Job
from zskt_dist.runtime.networks import load_trained
from zskt_dist.runtime.storage import absolute, check
from zskt_dist.runtime.world import World
from zskt_dist.tracking.base import NullTracker, Tracker
from zskt_dist.tracking.local import read_history
from zskt_dist.tracking.mlflow import (
    IMAGE_KEY,
    MlflowStream,
    RunAddress,
    log_student,
    open_run,
    set_tags,
    tracking_uri,
    upload,
)

log = logging.getLogger(__name__)


def open_record(job: Job, group: RunAddress | None = None) -> Job:
    """The job with the address of its MLflow run; without one, and a warning, where MLflow cannot be reached."""
    uri = tracking_uri(job.config.tracking.uri)
    if uri is None:
        return job
    directory = RunDirectory(job.directory)
    try:
        address = _open(directory, uri, job.config, _tags(job) | _nested(group, uri))
    except Exception as error:
        log.warning("%s", _unreachable(uri, error, directory))
        return job
    return replace(job, tracking=address._asdict())


def open_group(directory: RunDirectory, command: str, config: Config) -> RunAddress | None:
    """The MLflow run under which those of several seeds are nested; None where MLflow cannot be reached."""
    uri = tracking_uri(config.tracking.uri)
    if uri is None or is_follower():
        return None
    try:
        seeds = ",".join(str(seed) for seed in config.seeds or ())
        return _open(directory, uri, config, {"command": command, "seeds": seeds, **_what(config, "pair")})
    except Exception as error:
        log.warning("%s", _unreachable(uri, error, directory))
        return None


def adopt(directory: RunDirectory, group: RunAddress | None) -> None:
    """Nests a run that was finished earlier under `group`."""
    known = read_json(directory.tracking)
    if group is None or not known or known["tracking_uri"] != group.tracking_uri:
        return
    try:
        set_tags(_address(known), _nested(group, group.tracking_uri))
    except Exception as error:
        log.warning("%s", _unreachable(group.tracking_uri, error, directory))


def close_group(directory: RunDirectory, group: RunAddress | None) -> None:
    """Means and standard deviations over the seeds become metrics of the group's run."""
    result = directory.finished()
    if group is None or result is None:
        return
    try:
        _upload_group(directory, group, result)
    except Exception as error:
        log.warning("%s", _unreachable(group.tracking_uri, error, directory))


def _upload_group(directory: RunDirectory, group: RunAddress, result: dict[str, Any]) -> int:
    row: dict[str, float] = {"iteration": result["iterations"], "time": round(time.time() * 1000)}
    for who in ("teacher", "student", "mte"):
        numbers = {key: value for key, value in (result[who] or {}).items() if isinstance(value, float)}
        row |= {f"{who}_{key}" if who != "student" else key: value for key, value in numbers.items()}
    directory.finish(result | {"mlflow": group._asdict()})
    files = [directory.config, directory.result]
    missing = upload(group, rows=[row], images={}, files=files, folders={}, tags={}, log_model=None, status="FINISHED")
    write_json(directory.tracking, group._asdict() | {"complete": True})
    return missing


@contextmanager
def live_tracker(job: Job, world: World) -> Iterator[Tracker]:
    """What rank 0 reports to while training; nothing on other ranks and where there is no MLflow run."""
    if job.tracking is None or not world.is_main:
        yield NullTracker()
        return
    stream = MlflowStream(RunAddress(**job.tracking))
    try:
        yield stream
    finally:
        stream.close()


def close_record(job: Job, status: str) -> None:
    """Sends what MLflow lacks of the run, and of those made on its way; warns where it cannot be reached."""
    uri = tracking_uri(job.config.tracking.uri)
    if uri is None:
        return
    directories = [RunDirectory(job.directory)]
    for location in {job.teacher_directory, job.student_directory} - {job.directory}:
        other = RunDirectory(location)
        other.mirror.attempt(partial(other.mirror.pull, checkpoints=False))
        if other.finished() and not other.tracking.exists():
            directories.append(other)
    for directory in directories:
        try:
            replay(directory, uri, status=status if directory is directories[0] else "FINISHED")
        except Exception as error:
            log.warning("%s", _unreachable(uri, error, directory))
            return


def replay(directory: RunDirectory, uri: str, *, status: str | None = None) -> int:
    """Uploads everything of a run directory that the store at `uri` lacks; returns the number of missing rows.

    Args:
        status: MLflow's word for how the run ended; None: from the result.

    Raises:
        UserError: the directory holds no run.
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    config = directory.read_config()
    if config is None:
        raise UserError(f"{directory.location} is no run directory: it has no config.yaml")
    result = directory.finished()
    if result and "seeds" in result:
        return _upload_group(directory, _open(directory, uri, config, {}), result)
    address = _open(directory, uri, config, _result_tags(config, result) if result else {})
    if result and result["mlflow"] != address._asdict():
        result = result | {"mlflow": address._asdict()}
        directory.finish(result)
    figures = sorted(directory.figures.glob("*.png")) if directory.figures.is_dir() else []
    stepped = {int(p.stem.rsplit("_", 1)[1]): p for p in figures if p.stem.rsplit("_", 1)[0] == IMAGE_KEY}
    role = "student" if directory.weights("student").exists() else "teacher"
    files = [directory.config, directory.result, directory.history, directory.weights(role)]
    files += [path for path in figures if path not in stepped.values()]
    extra = sorted(directory.evaluation.glob("*.*")) if directory.evaluation.is_dir() else []
    missing = upload(
        address,
        rows=[*read_history(directory.history), *_evaluation_row(directory, result)],
        images=stepped,
        files=[path for path in files if path.exists()],
        folders={"evaluation": extra},
        tags=_result_tags(config, result) if result else {},
        log_model=(lambda: _log_model(directory, config, role)) if result else None,
        status=status or ("FINISHED" if result else "KILLED"),
    )
    write_json(directory.tracking, address._asdict() | {"complete": result is not None})
    return missing


def repair_record(directory: RunDirectory, uri: str | None) -> None:
    """Completes the MLflow run of a finished run whose command was killed while it uploaded."""
    target = tracking_uri(uri)
    if target is None:
        return
    try:
        with directory.driven():
            replay(directory, target)
    except Exception as error:
        log.warning("%s", _unreachable(target, error, directory))


def _evaluation_row(directory: RunDirectory, result: dict[str, Any] | None) -> list[dict[str, float]]:
    """What `evaluate` has measured, as metrics at the last iteration."""
    answer = read_json(directory.evaluation / "evaluation.json")
    if not answer or not result:
        return []
    row = {f"ece_{name}": values["ece"] for name, values in answer["calibration"].items()}
    if answer["mte"] and answer["mte"]["value"] is not None:
        row["mte"] = answer["mte"]["value"]
    return [{"iteration": result["iterations"], "time": round(time.time() * 1000), **row}]


def replay_command(location: str, uri: str | None) -> str:
    """`python -m zskt_dist.replay`; returns what to tell the user.

    Raises:
        UserError: no run directory, or the store cannot be reached.
    """
    check(location, "RUN_DIR")
    directory = RunDirectory(absolute(location))
    directory.mirror.pull(checkpoints=False)
    known = read_json(directory.tracking)
    target = tracking_uri(uri or (known and known["tracking_uri"]))
    if target is None:
        raise UserError("--uri none: name a store, for example sqlite:///mlflow.db")
    if not directory.config.exists():
        raise UserError(f"{location} is no run directory: it has no config.yaml")
    try:
        with directory.driven():
            missing = replay(directory, target)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {target} cannot be reached: {type(error).__name__}: {error}") from None
    directory.mirror.push()
    return f"{missing} rows were missing; the run is complete at {target}"


def _open(directory: RunDirectory, uri: str, config: Config, tags: dict[str, str]) -> RunAddress:
    known = read_json(directory.tracking)
    address = open_run(
        uri,
        directory.path.parent.name,
        directory.path.name,
        params=dict(flatten(config)),
        tags=tags,
        known=_address(known) if known else None,
    )
    write_json(directory.tracking, address._asdict())
    return address


def _address(known: dict[str, Any]) -> RunAddress:
    return RunAddress(*(known[field] for field in RunAddress._fields))


def _nested(group: RunAddress | None, uri: str) -> dict[str, str]:
    """MLflow's own tag for a run that is shown under another."""
    return {"mlflow.parentRunId": group.run_id} if group and group.tracking_uri == uri else {}


def _log_model(directory: RunDirectory, config: Config, role: str) -> str:
    network, shape = load_trained(config, role, directory.weights(role))
    return log_student(network, shape, name=role)


def _tags(job: Job) -> dict[str, str]:
    """Tags that are known before training."""
    config = job.config
    return {
        "command": job.command,
        "config_hash": job.config_hash,
        "launcher": job.launcher,
        "run_directory": job.directory,
        **_what(config, job.role if job.command == "pretrain" else "pair"),
        **({"mlflow.source.git.commit": job.git_commit, "git_commit": job.git_commit} if job.git_commit else {}),
    }


def _result_tags(config: Config, result: dict[str, Any]) -> dict[str, str]:
    teacher, student = result["teacher"], result["student"]
    tags = {key: str(result[key]) for key in ("command", "config_hash", "launcher", "world_size", "git_commit")}
    tags |= _what(config, "pair" if teacher and student else "student" if student else "teacher")
    return tags | ({"student_sha256": student["sha256"]} if student else {})


def _what(config: Config, trained: str) -> dict[str, str]:
    """What the comparison view is filtered by."""
    pair = f"{config.teacher.arch} -> {config.student.arch}" if trained == "pair" else getattr(config, trained).arch
    return {"pair": pair, "dataset": config.data.name}


def _unreachable(uri: str, error: Exception, directory: RunDirectory) -> str:
    if isinstance(error, ImportError):
        return "MLflow is not installed: the numbers are in the run directory only (tracking.uri=none silences this)"
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return (
        f"MLflow at {uri} cannot be reached ({type(error).__name__}: {line}). Nothing is lost: "
        f"`python -m zskt_dist.replay {directory.location}` uploads the run later"
    )
