"""The MLflow run of a job: opened by the driver, fed by rank 0, completed from the run directory."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

from zskt_dist.config import Config, flatten
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError, one_line
from zskt_dist.extras import install, is_installed
from zskt_dist.files import read_json, write_json
from zskt_dist.networks.building import load_trained
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import absolute, check
from zskt_dist.tracking.base import NullTracker, Row, Tracker
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
from zskt_dist.training.job import Job

log = logging.getLogger(__name__)


def open_record(job: Job) -> Job:
    """The job with the address of its MLflow run; without one, and a warning, where MLflow cannot be reached."""
    uri = _store(job.config.tracking.uri)
    if uri is None:
        return job
    directory = job.directory
    try:
        address = _open(directory, uri, job.config, _tags(job) | _nested(directory, uri))
    except Exception as error:
        log.warning("%s", _unreachable(uri, error, directory))
        return job
    return replace(job, tracking=address._asdict())


def open_group(directory: RunDirectory, config: Config) -> None:
    """Opens the MLflow run under which those of several seeds are nested, where MLflow can be reached."""
    uri = _store(config.tracking.uri)
    if uri is None:
        return
    try:
        _open(directory, uri, config, _group_tags(directory, config))
    except Exception as error:
        log.warning("%s", _unreachable(uri, error, directory))


def adopt(run: RunDirectory, group: RunDirectory, uri: str | None) -> None:
    """Nests a run that was finished earlier under `group`, and completes its record where that was cut short."""
    run.belong_to(group.path.name)
    target = _store(uri)
    known = read_json(run.tracking)
    if target is None or not known or known["tracking_uri"] != target:
        return
    if run.record_is_partial():
        repair_record(run, uri)
        return
    try:
        set_tags(RunAddress.of(known), _nested(run, target))
    except Exception as error:
        log.warning("%s", _unreachable(target, error, run))


def close_group(directory: RunDirectory, config: Config, status: str) -> None:
    """Means and standard deviations over the seeds become metrics of the group's run.

    Args:
        status: MLflow's word for how the command ended.
    """
    uri = _store(config.tracking.uri)
    if uri is None:
        return
    try:
        _upload_group(directory, uri, config, status)
    except Exception as error:
        log.warning("%s", _unreachable(uri, error, directory))


def _upload_group(directory: RunDirectory, uri: str, config: Config, status: str) -> int:
    group = _open(directory, uri, config, _group_tags(directory, config))
    if result := directory.finished():
        result = result | {"mlflow": group._asdict()}
        directory.finish(result)
    for run in (directory.sibling(name) for name in (result or {}).get("runs", [])):
        known = read_json(run.tracking)  # opened while the group could not be
        if (own := run.group()) and own.path == directory.path and known and known["tracking_uri"] == uri:
            set_tags(RunAddress.of(known), _nested(run, uri))
    missing = upload(
        group,
        rows=[],
        scores=_group_scores(result) if result else {},
        images={},
        files=[path for path in (directory.config, directory.result) if path.exists()],
        folders={},
        tags={},
        log_model=None,
        status=status,
    )
    write_json(directory.tracking, group._asdict() | {"complete": result is not None})
    return missing


def _group_scores(result: dict[str, Any]) -> Row:
    """Means and deviations, under the names that the single runs' metrics have."""
    scores: Row = {"iteration": result["iterations"], "time": round(time.time() * 1000)}
    places = {
        "accuracy": ("student", "accuracy_last"),
        "agreement": ("student", "agreement"),
        "teacher_accuracy": ("teacher", "accuracy"),
        "mte": ("mte", "value"),
    }
    for name, (who, key) in places.items():
        for suffix in ("", "_std"):
            if (value := (result[who] or {}).get(key + suffix)) is not None:
                scores[name + suffix] = value
    return scores | _estimates(result)


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
    uri = _store(job.config.tracking.uri)
    if uri is None:
        return
    directories = [job.directory]
    for other in (stage.directory for stage in job.stages[:-1]):
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
    if config.seeds is not None:
        return _upload_group(directory, uri, config, status or ("FINISHED" if result else "KILLED"))
    tags = (_result_tags(config, result) if result else {}) | _nested(directory, uri)
    address = _open(directory, uri, config, tags)
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
        rows=read_history(directory.history),
        scores=_evaluation_scores(directory, result) if result else {},
        images=stepped,
        files=[path for path in files if path.exists()],
        folders={"evaluation": extra},
        tags=tags,
        log_model=(lambda: _log_model(directory, config, role)) if result else None,
        status=status or ("FINISHED" if result else "KILLED"),
    )
    write_json(directory.tracking, address._asdict() | {"complete": result is not None})
    return missing


def repair_record(directory: RunDirectory, uri: str | None) -> None:
    """Completes the MLflow run of a finished run whose command was killed while it uploaded."""
    target = _store(uri)
    if target is None:
        return
    try:
        with directory.driven():
            replay(directory, target)
    except Exception as error:
        log.warning("%s", _unreachable(target, error, directory))


def mark_partial(directory: RunDirectory) -> None:
    """Notes, where there is an MLflow run, that something is about to be measured that it does not have."""
    if known := read_json(directory.tracking):
        write_json(directory.tracking, known | {"complete": False})


def _evaluation_scores(directory: RunDirectory, result: dict[str, Any]) -> Row:
    """What was estimated at the end and what `evaluate` has measured last, as metrics at the last iteration."""
    scores = _estimates(result)
    answer = read_json(directory.evaluation / "evaluation.json")
    scores |= _measured(answer) if answer else {}
    return {"iteration": result["iterations"], "time": round(time.time() * 1000), **scores} if scores else {}


def _estimates(result: dict[str, Any]) -> dict[str, float]:
    """What was estimated on images that are not real, by the names of the metrics."""
    sources = (result.get("estimates") or {}).get("sources") or {}
    return {f"estimate_{source}_{name}": value for source, entry in sources.items() for name, value in entry.items()}


def _measured(answer: dict[str, Any]) -> Row:
    """The main numbers of `evaluation.json`."""
    scores = {f"ece_{name}": values["ece"] for name, values in answer["calibration"].items()}
    if answer["teacher_accuracy"] is not None:
        scores["teacher_accuracy"] = answer["teacher_accuracy"]
    if answer["mte"] and answer["mte"]["value"] is not None:
        scores["mte"] = answer["mte"]["value"]
    return scores


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
        known=RunAddress.of(known) if known else None,
    )
    write_json(directory.tracking, address._asdict())
    return address


def _nested(run: RunDirectory, uri: str) -> dict[str, str]:
    """MLflow's own tag for a run that is shown under another; {} while the other is not in this store."""
    group = run.group()
    known = group and read_json(group.tracking)
    return {"mlflow.parentRunId": known["run_id"]} if known and known["tracking_uri"] == uri else {}


def _group_tags(directory: RunDirectory, config: Config) -> dict[str, str]:
    command = str((read_json(directory.begun) or {}).get("command"))
    return {"command": command, "seeds": ",".join(str(seed) for seed in config.seeds or ()), **_what(config, "pair")}


def _log_model(directory: RunDirectory, config: Config, role: str) -> str:
    network, shape = load_trained(config, role, directory.weights(role))
    return log_student(network, shape, name=role)


def _tags(job: Job) -> dict[str, str]:
    """Tags that are known before training."""
    config, goal = job.config, job.goal
    return {
        "command": goal.task.command,
        "config_hash": goal.hash,
        "launcher": job.launcher,
        "run_directory": goal.run,
        **_what(config, "pair" if goal.task.needs else goal.task.role),
        **({"mlflow.source.git.commit": job.git_commit, "git_commit": job.git_commit} if job.git_commit else {}),
    }


def _result_tags(config: Config, result: dict[str, Any]) -> dict[str, str]:
    teacher, student = result["teacher"], result["student"]
    keys = ("command", "config_hash", "launcher", "world_size", "git_commit")
    tags = {key: str(result[key]) for key in keys if result[key] is not None}
    tags |= _what(config, "pair" if teacher and student else "student" if student else "teacher")
    return tags | ({"student_sha256": student["sha256"]} if student else {})


def _what(config: Config, trained: str) -> dict[str, str]:
    """What the comparison view is filtered by."""
    pair = f"{config.teacher.arch} -> {config.student.arch}" if trained == "pair" else getattr(config, trained).arch
    return {"pair": pair, "dataset": config.data.name}


def _store(configured: str | None) -> str | None:
    """The store to write to; None: none is asked for, or, with a warning, MLflow is not installed."""
    uri = tracking_uri(configured)
    if uri is None or is_installed("mlflow"):
        return uri
    _warn_that_mlflow_is_missing()
    return None


@cache
def _warn_that_mlflow_is_missing() -> None:
    """Once for a command, however many runs it makes."""
    remedy = f"{install('mlflow')}, or silence this by tracking.uri=none"
    log.warning("MLflow is not installed: the numbers are in the run directory only (%s)", remedy)


def _unreachable(uri: str, error: Exception, directory: RunDirectory) -> str:
    return (
        f"MLflow at {uri} cannot be reached ({one_line(error)}). Nothing is lost: "
        f"`python -m zskt_dist.replay {directory.location}` uploads the run later"
    )
