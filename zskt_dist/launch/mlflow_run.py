"""The MLflow run of a run directory: opened by the driver, fed by rank 0, completed from what the directory holds."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from zskt_dist.addresses import masked
from zskt_dist.config import Config, flatten
from zskt_dist.distributed.world import World
from zskt_dist.errors import DamagedFileError, UserError, one_line
from zskt_dist.extras import install
from zskt_dist.files import read_json, write_json
from zskt_dist.launch.mlflow_facts import (
    data_inputs,
    final_scores,
    group_tags,
    job_tags,
    mean_scores,
    parent_tag,
    result_tags,
    run_name,
    swept_params,
)
from zskt_dist.launch.named_code import check_named
from zskt_dist.launch.patience import Patience, patience
from zskt_dist.networks.building import load_trained
from zskt_dist.runs.directory import Differs, RunDirectory, find_run
from zskt_dist.tracking.base import NullTracker, Tracker
from zskt_dist.tracking.local import read_history
from zskt_dist.tracking.mlflow.models import log_student
from zskt_dist.tracking.mlflow.runs import IMAGE_KEY, find_experiment, open_run, upload
from zskt_dist.tracking.mlflow.store import (
    RunAddress,
    connect,
    reached,
    required_uri,
    store_of,
    tracking_uri,
    withhold_credentials,
)
from zskt_dist.tracking.mlflow.stream import MlflowStream
from zskt_dist.training.job import Job

log = logging.getLogger(__name__)

T = TypeVar("T")


def attempt(uri: str, action: Callable[[], T], remedy: str) -> T | None:
    """The result of `action`; None, after a warning that ends with the remedy, where MLflow is not reached in time."""
    try:
        return patience.ask(uri, action)
    except ImportError:
        _warn_that_mlflow_is_missing()
    except DamagedFileError as error:
        log.warning("%s. So MLflow at %s lacks it", error, uri)
    except UserError as error:
        log.warning("MLflow at %s: %s. Nothing is lost: %s", uri, error, remedy)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # a file of ours, not the server
            log.warning("%s: %s. So MLflow at %s lacks what is in it; %s", error.filename, error.strerror, uri, remedy)
            return None
        log.warning("MLflow at %s cannot be reached (%s). Nothing is lost: %s", uri, masked(one_line(error)), remedy)
    return None


@cache
def _warn_that_mlflow_is_missing() -> None:
    """Warns once per command, however many runs it makes."""
    advice = f"{install('mlflow')}, or silence this by tracking.uri=none"
    log.warning("MLflow is not installed: the numbers are in the run directory only (%s)", advice)


def _replay_later(directory: RunDirectory) -> str:
    return f"`python -m zskt_dist.replay {quote(str(directory.location))}` uploads the run later"


def open_directory(
    directory: RunDirectory, uri: str, tags: Mapping[str, str], params: Mapping[str, Any] | None = None
) -> RunAddress:
    """Creates or reopens the MLflow run of a directory and notes its address there; raises whatever MLflow raises."""
    name, config = directory.path.name, directory.read_config()
    command = (read_json(directory.begun) or {}).get("command")
    if command and config:  # else: a sweep
        name = run_name(name, command, config, directory.differs())
    address = open_run(
        uri,
        directory.path.parent.name,
        name,
        params=params or {},
        tags=tags,
        known=RunAddress.read(directory.tracking),
    )
    write_json(directory.tracking, address._asdict())
    return address


def foreseen(config: Config) -> str | None:
    """Why a run of this experiment will not be recorded, where the store is there and says so in time."""
    uri = tracking_uri(config.tracking.uri)
    file = Path(uri.removeprefix("sqlite:///")) if uri and uri.startswith("sqlite:///") else None
    if uri is None or (file and not (file.exists() and file.stat().st_size)):  # MLflow would make its tables
        return None
    patience.begin(config.tracking.patience)
    try:
        patience.ask(uri, lambda: find_experiment(connect(uri), config.experiment))
    except ImportError:
        return None
    except Exception as error:
        return f"{uri}: {masked(one_line(error))}; runs go on without it"
    return None


def open_record(job: Job) -> Job:
    """The job with the address of its MLflow run; without one, and a warning, where MLflow cannot be reached."""
    patience.begin(job.config.tracking.patience)
    address = _open(job.directory, job.config, job_tags(job))
    return replace(job, tracking=address._asdict()) if address else job


def open_group(directory: RunDirectory, config: Config) -> None:
    """Opens the MLflow run under which those of several seeds are nested, where MLflow can be reached."""
    patience.begin(config.tracking.patience)
    _open(directory, config, group_tags(directory, config))


def _open(directory: RunDirectory, config: Config, tags: dict[str, str]) -> RunAddress | None:
    uri = tracking_uri(config.tracking.uri)
    if uri is None:
        return None
    if not directory.tracking.exists():  # so that `replay` goes there, even if it cannot be reached now
        write_json(directory.tracking, {"tracking_uri": uri})
    opening = partial(open_directory, directory, uri, tags | parent_tag(directory, uri), _params(directory, config))
    return attempt(uri, opening, _replay_later(directory))


def _params(directory: RunDirectory, config: Config) -> dict[str, Any]:
    return dict(flatten(config)) | swept_params(config, directory.differs().swept)


@contextmanager
def live_tracker(job: Job, world: World) -> Iterator[Tracker]:
    """The tracker for rank 0 while training; one that does nothing on other ranks and without an MLflow run."""
    if job.tracking is None or not world.is_main:
        yield NullTracker()
        return
    stream = MlflowStream(RunAddress(**job.tracking), Patience(job.config.tracking.patience).for_last_rows)
    try:
        yield stream
    finally:
        stream.close()


def complete_record(directory: RunDirectory, configured: str | None, status: str | None = None) -> bool:
    """Uploads what MLflow lacks of a run or a group; returns False, after a warning, where it cannot be reached.

    Args:
        configured: Value of `tracking.uri`.
        status: MLflow's word for how the run ended; None: from the result.
    """
    uri = tracking_uri(configured)
    if uri is None:
        return True
    return attempt(uri, partial(replay, directory, uri, status=status), _replay_later(directory)) is not None


def close_record(job: Job, status: str) -> None:
    """Completes the MLflow run of a job and those of its earlier stages."""
    uri = tracking_uri(job.config.tracking.uri)
    if uri is None or not complete_record(job.directory, uri, status):
        return
    for other in (stage.directory for stage in job.stages[:-1]):
        other.mirror.attempt(partial(other.mirror.pull, checkpoints=False))
        if other.finished() and not other.tracking.exists() and not complete_record(other, uri, "FINISHED"):
            return


def repair_record(directory: RunDirectory, configured: str | None) -> None:
    """Completes the MLflow run of a finished run whose command was killed while it uploaded."""
    with suppress(UserError), directory.driven():  # else: the command that is working on the run will do it
        complete_record(directory, configured)


def adopt(run: RunDirectory, group: RunDirectory, differs: Differs, configured: str | None) -> None:
    """Adds a run that was finished earlier to `group`, nests its MLflow run there and completes its record."""
    run.belong_to(group.path.name, differs)
    known = RunAddress.read(run.tracking)
    if known and known.tracking_uri == tracking_uri(configured) and run.record_is_partial():
        repair_record(run, configured)


def mark_partial(directory: RunDirectory) -> None:
    """Notes that the MLflow run, where one is wanted, will lack the measurement that begins now."""
    if known := read_json(directory.tracking):
        write_json(directory.tracking, known | {"complete": False})


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
    result, is_group = directory.finished(), config.seeds is not None
    tags = group_tags(directory, config) if is_group else result_tags(config, result) if result else {}
    address = open_directory(directory, uri, tags | parent_tag(directory, uri), _params(directory, config))
    patience.check()
    if result and result["mlflow"] != address._asdict():
        result = result | {"mlflow": address._asdict()}
        directory.finish(result)
    status = status or ("FINISHED" if result else "KILLED")
    if is_group:
        missing = _upload_group(address, directory, result, status)
    else:
        missing = _upload_run(address, directory, config, result, status)
    patience.check()
    write_json(directory.tracking, address._asdict() | {"complete": result is not None, "grouped": True})
    return missing


def _upload_run(
    address: RunAddress, directory: RunDirectory, config: Config, result: dict[str, Any] | None, status: str
) -> int:
    role = "student" if directory.weights("student").exists() else "teacher"
    images = {int(path.stem.rsplit("_", 1)[1]): path for path in directory.figures.glob(f"{IMAGE_KEY}_[0-9]*.png")}
    figures = [path for path in sorted(directory.figures.glob("*.png")) if path not in images.values()]
    files = present(
        [directory.config, directory.result, directory.page, directory.history, directory.weights(role), *figures]
    )
    return upload(
        address,
        rows=read_history(directory.history),
        scores=final_scores(directory, result) if result else None,
        images=images,
        files=files | dict.fromkeys(sorted(directory.evaluation.glob("*.*")), "evaluation"),
        inputs=data_inputs(result) if result else (),
        log_model=partial(_log_model, directory, config, role) if result else None,
        status=status,
    )


def _upload_group(address: RunAddress, group: RunDirectory, result: dict[str, Any] | None, status: str) -> int:
    """Means and standard deviations over the seeds become metrics of the group's run."""
    for run in (group.sibling(name) for name in (result or {}).get("runs", [])):
        known, own = RunAddress.read(run.tracking), run.group()  # opened while the group's run could not be
        if own and own.path == group.path and known and known.tracking_uri == address.tracking_uri:
            upload(known, tags=parent_tag(run, address.tracking_uri))
    scores = mean_scores(result) if result else None
    files = present([group.config, group.result, group.page])
    inputs = data_inputs(result) if result else ()
    return upload(address, scores=scores, files=files, inputs=inputs, status=status)


def present(files: Sequence[Path]) -> dict[Path, str]:
    """The files that exist, each for the top folder of the artifacts, as `upload` takes them."""
    return {path: "" for path in files if path.exists()}


def _log_model(directory: RunDirectory, config: Config, role: str) -> str:
    network, shape = load_trained(config, role, directory.weights(role))
    return log_student(network, shape, name=role)


def replay_command(location: str, uri: str | None, words: Sequence[str] = ()) -> str:
    """`python -m zskt_dist.replay`; returns a line for the user.

    Args:
        words: What names code of the run's configuration that may be run (`named_code`).

    Raises:
        UserError: there is no run directory, or the store cannot be reached.
    """
    directory = find_run(location)
    target = required_uri(uri, store_of(directory.tracking))
    config = directory.read_config()
    if config is None:
        raise UserError(f"{location} is no run directory: it has no config.yaml")
    check_named(location, config, words)
    withhold_credentials(target, uri)
    with reached(target), directory.driven():
        missing = replay(directory, target)
    directory.mirror.push()
    return f"{missing} rows were missing; the run is complete at {target}"
