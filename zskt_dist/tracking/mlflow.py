"""MLflow as the record of runs; the only file that imports it.

A run directory holds everything that MLflow gets: metric rows, pictures, weights, result. While a
run trains, a thread streams its rows; at the end, or whenever asked to (`zskt_dist.replay`),
`upload` compares the directory with the server and sends what is missing. So an unreachable server
costs a warning and nothing else.
"""

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zskt_dist.errors import UserError, one_line
from zskt_dist.tracking.base import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

IMAGE_KEY = "pseudo_images"
_IMAGE_NAME = re.compile(rf"{IMAGE_KEY}\+step\+(\d+)\+")
"""MLflow's own naming of stepped images: KEY+step+N+timestamp+…."""
_DOWN_SECONDS = 30.0
"""How long a server that failed is left alone."""
_CLOSE_SECONDS = 15.0
"""How long the end of a run waits for the last rows to be sent."""
_BATCH = 1000
"""Most metrics MLflow takes in one request."""


class RunAddress(NamedTuple):
    """Where a run is recorded; plain strings that travel to workers and into `result.json`."""

    tracking_uri: str
    experiment_id: str
    run_id: str

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> "RunAddress":
        """From the content of `mlflow.json`, which may hold more."""
        return cls(*(known[field] for field in cls._fields))


def tracking_uri(configured: str | None) -> str | None:
    """The store to write to, with an absolute path: workers start in other folders; None: do not track."""
    if configured == "none":
        return None
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri


def check_reachable(uri: str) -> None:
    """Asks the store something small; raises whatever MLflow raises.

    MLflow makes what is missing of a store: the tables of an empty database, a folder with a default experiment.
    """
    _client(uri).search_experiments(max_results=1)


def open_run(
    uri: str,
    experiment: str,
    name: str,
    *,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    known: RunAddress | None = None,
) -> RunAddress:
    """Creates a run, or reopens the `known` one where it still exists in this store.

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    client = _client(uri)
    if known is not None and known.tracking_uri == uri and (run := _find(client, known.run_id)):
        client.update_run(known.run_id, status="RUNNING")
        address = known
        present = run.data.params
        set_tags(address, {key: value for key, value in tags.items() if run.data.tags.get(key) != value})
    else:
        found = client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else _create_experiment(client, uri, experiment)
        run = client.create_run(experiment_id, run_name=name, tags=dict(tags))
        address, present = RunAddress(uri, experiment_id, run.info.run_id), {}
    log.info("MLflow run %s at %s", address.run_id, uri)
    _log_params(client, address.run_id, {k: v for k, v in params.items() if k not in present})
    return address


def set_tags(address: RunAddress, tags: Mapping[str, str]) -> None:
    """Raises whatever MLflow raises when the store cannot be reached."""
    client = _client(address.tracking_uri)
    for key, value in tags.items():
        client.set_tag(address.run_id, key, value)


def end_run(address: RunAddress, status: str) -> None:
    """Closes a run whose process could not; one that is closed in this way keeps the time at which it ended."""
    client = _client(address.tracking_uri)
    if client.get_run(address.run_id).info.status != status:
        client.set_terminated(address.run_id, status)


def log_values(address: RunAddress, values: Mapping[str, float], step: int = 0) -> None:
    """Metrics that replace what they were before; raises whatever MLflow raises when the store cannot be reached."""
    client = _client(address.tracking_uri)
    for name, value in values.items():
        client.log_metric(address.run_id, name, value, step=step)


class MlflowStream:
    """A tracker that sends rows from a thread of its own; calls return at once, whatever the server does."""

    def __init__(self, address: RunAddress) -> None:
        self._address = address
        self._events: queue.SimpleQueue[Callable[[_Run], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, row: Row) -> None:
        self._events.put(lambda run: run.send_rows([row]))

    def image(self, row: Row, path: Path) -> None:
        self._events.put(lambda run: run.send_image(row, path))

    def close(self) -> None:
        self._events.put(None)
        self._thread.join(timeout=_CLOSE_SECONDS)

    def _send_all(self) -> None:
        run: _Run | None = None
        down_until = 0.0
        while (send := self._events.get()) is not None:
            if time.monotonic() < down_until:
                continue  # the row is in the run directory, and is sent with the rest at the end
            try:
                run = run or _Run(self._address)
                send(run)
            except Exception as error:
                down_until = time.monotonic() + _DOWN_SECONDS
                run = None
                log.warning("MLflow at %s: %s; training goes on", self._address.tracking_uri, one_line(error))


def upload(
    address: RunAddress,
    *,
    rows: Sequence[Row],
    scores: Row,
    images: Mapping[int, Path],
    files: Sequence[Path],
    folders: Mapping[str, Sequence[Path]],
    tags: Mapping[str, str],
    log_model: Callable[[], str] | None,
    status: str,
) -> int:
    """Brings a run on the server up to what its directory holds; safe to repeat. Returns the rows that were missing.

    Args:
        rows: Metrics of training, which stay as they were sent.
        scores: Metrics that may be measured again: one row, or {}; sent where the last value differs.
        images: PNG files by iteration.
        files: Logged as artifacts, replacing older ones of the same name.
        folders: Likewise, in folders of these names.
        log_model: Called inside the active run where it has no model yet; returns its URI. What fails is warned of.
        status: FINISHED, FAILED or KILLED (stopped, to be continued).

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    run = _Run(address)
    missing = run.send_rows(rows) + run.send_scores(scores)
    for iteration, path in images.items():
        run.send_image({"iteration": iteration}, path)
    for path in files:
        run.client.log_artifact(address.run_id, str(path))
    for folder, members in folders.items():
        for path in members:
            run.client.log_artifact(address.run_id, str(path), folder)
    if log_model and "model_uri" not in run.client.get_run(address.run_id).data.tags:
        try:
            tags = {**tags, "model_uri": _log_model(address, log_model)}
        except UserError as error:
            log.warning("%s", error)
            tags = {**tags, "model_error": str(error)}
    set_tags(address, tags)
    run.client.set_terminated(address.run_id, status)
    return missing


def download_runs(uri: str, experiment: str, folder: Path) -> list[Path] | None:
    """Run directories of an experiment: those on this machine as they are, others from their artifacts.

    Returns:
        None where there is no such experiment.

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    client = _client(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    folders = []
    for run in client.search_runs([found.experiment_id], max_results=50_000):
        here = Path(run.data.tags.get("run_directory", ""))
        if (here / "result.json").exists():
            folders.append(here)
        elif any(item.path == "result.json" for item in client.list_artifacts(run.info.run_id)):
            target = folder / experiment / run.info.run_id
            target.mkdir(parents=True)
            client.download_artifacts(run.info.run_id, "", str(target))
            (target / "figures").mkdir(exist_ok=True)
            for picture in target.glob("*.png"):  # a run directory keeps them there
                picture.rename(target / "figures" / picture.name)
            folders.append(target)
    return folders


def log_folder(uri: str, experiment: str, name: str, folder: Path) -> None:
    """A new run whose artifacts are the files of `folder`; raises whatever MLflow raises."""
    address = open_run(uri, experiment, name, params={}, tags={"report": name})
    client = _client(uri)
    client.log_artifacts(address.run_id, str(folder))
    client.set_terminated(address.run_id, "FINISHED")


class _Run:
    """A run on the server, and what it has already: sending the same row twice leaves one."""

    def __init__(self, address: RunAddress) -> None:
        self.client = _client(address.tracking_uri)
        self.run_id = address.run_id
        self._steps: dict[str, set[int]] = {}
        self._images: set[int] | None = None

    def send_rows(self, rows: Sequence[Row]) -> int:
        """Sends what is missing of `rows`; returns how many of them had something missing."""
        from mlflow.entities import Metric

        metrics, touched = [], 0
        for row in rows:
            step, moment = int(row["iteration"]), int(row["time"])
            new = [
                Metric(name, value, moment, step)
                for name, value in row.items()
                if name not in ("iteration", "time") and step not in self._known(name)
            ]
            touched += bool(new)
            metrics += new
        for start in range(0, len(metrics), _BATCH):
            batch = metrics[start : start + _BATCH]
            self.client.log_batch(self.run_id, metrics=batch)
            for metric in batch:
                self._known(metric.key).add(metric.step)
        return touched

    def send_scores(self, row: Row) -> int:
        """Sends those metrics whose last value in the store is another; returns 1 where there were any, else 0."""
        from mlflow.entities import Metric

        values = {name: value for name, value in row.items() if name not in ("iteration", "time")}
        last = self.client.get_run(self.run_id).data.metrics if values else {}
        step, moment = (int(row[name]) for name in ("iteration", "time")) if values else (0, 0)
        changed = [Metric(name, value, moment, step) for name, value in values.items() if last.get(name) != value]
        if changed:
            self.client.log_batch(self.run_id, metrics=changed)
        return int(bool(changed))

    def send_image(self, row: Row, path: Path) -> None:
        from PIL import Image

        step = int(row["iteration"])
        if self._images is None:
            names = [Path(item.path).name for item in self.client.list_artifacts(self.run_id, "images")]
            self._images = {int(match[1]) for name in names if (match := _IMAGE_NAME.match(name))}
        if step not in self._images:
            self.client.log_image(self.run_id, Image.open(path), key=IMAGE_KEY, step=step, synchronous=True)
            self._images.add(step)

    def _known(self, name: str) -> set[int]:
        if name not in self._steps:
            self._steps[name] = {metric.step for metric in self.client.get_metric_history(self.run_id, name)}
        return self._steps[name]


def log_student(network: Any, image_shape: Sequence[int], *, name: str) -> str:
    """Logs `network` ([B, C, H, W] normalised images to logits) in the active run; returns the model's URI.

    The format is torch.export's: it loads without this package and runs no pickled code. The
    example has two images, for with one the batch size would be fixed at one.
    """
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    example = np.zeros((2, *image_shape), dtype=np.float32)
    with torch.no_grad():
        classes = network(torch.from_numpy(example)).shape[1]
    info = mlflow.pytorch.log_model(
        network,
        name=name,
        serialization_format="pt2",
        input_example=example,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *image_shape))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]),
        ),
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],  # spares MLflow an inference in a new process
    )
    return str(info.model_uri)


def register_model(
    address: RunAddress, name: str, *, tags: Mapping[str, str], log_model: Callable[[], str], is_logged: bool
) -> tuple[str, str]:
    """Makes a model of a run a version of the registered model `name`; one with the same tags is there already.

    Args:
        log_model: Called inside the active run where the model has to be logged first; returns its URI.
        is_logged: It is the model that `upload` has logged.

    Returns:
        The version and the model's URI.

    Raises:
        UserError: the model cannot be logged; Exception: whatever MLflow raises when the store cannot be reached.
    """
    import mlflow

    client = _client(address.tracking_uri)
    for version in client.search_model_versions(f"name='{name}'"):
        if tags.items() <= version.tags.items():
            return str(version.version), str(version.source)
    mlflow.set_tracking_uri(address.tracking_uri)
    logged = client.get_run(address.run_id).data.tags.get("model_uri") if is_logged else None
    model_uri = logged or _log_model(address, log_model)
    return str(mlflow.register_model(model_uri, name, tags=dict(tags)).version), model_uri


def _log_model(address: RunAddress, log_model: Callable[[], str]) -> str:
    """Calls it inside the active run, which stays a good one; raises UserError where that fails."""
    import mlflow

    mlflow.set_tracking_uri(address.tracking_uri)
    with mlflow.start_run(run_id=address.run_id):  # in an outage it is the end of this that raises
        try:
            return log_model()
        except Exception as error:  # the network may be anybody's code, and torch has no one class for what it refuses
            failed = error
    raise UserError(f"the model cannot be logged in MLflow, as torch.export writes it: {one_line(failed)}") from failed


def _client(uri: str) -> "MlflowClient":
    # MLflow's own patience is minutes; a record is not worth that. What the user has set wins.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # so its lines look like all others
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _find(client: "MlflowClient", run_id: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None  # deleted in the UI: a new one is opened


def _create_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Artifacts of an SQLite store lie beside it, wherever a later command is started."""
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / "mlruns" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key, str(value)) for key, value in params.items()]
    for start in range(0, len(entries), 100):  # the most that MLflow takes at once
        client.log_batch(run_id, params=entries[start : start + 100])
