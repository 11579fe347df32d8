"""Runs on the server: opened, completed from what a run directory holds, closed.

All of it raises whatever MLflow raises when the store cannot be reached.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zskt_dist.errors import UserError
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.mlflow.models import log_model_in_run
from zskt_dist.tracking.mlflow.names import grouped
from zskt_dist.tracking.mlflow.store import RunAddress, connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

IMAGE_KEY = "pseudo_images"
_IMAGE_NAME = re.compile(rf"{IMAGE_KEY}[+%]step[+%](\d+)[+%]")
"""MLflow's own naming of stepped images: KEY+step+N+timestamp+…, with % in older releases."""
_METRICS, _PARAMS = 1000, 100
"""Most that MLflow takes in one request."""
NAME, NOTE = "mlflow.runName", "mlflow.note.content"
"""Tags that users edit on MLflow's pages."""
_SIGN = "mlflow.zskt."
"""Opens tags of ours that MLflow's pages do not show."""
_KIND = "mlflow.experimentKind"


class DataInput(NamedTuple):
    """Images that a run has read, or a word that it has read none.

    Attributes:
        name: Of the data set.
        digest: At most 36 characters that change when the images do.
        use: What for: MLflow's words are training, validation and testing.
        images: Number of images.
    """

    name: str
    digest: str
    use: str
    images: int


def open_run(
    uri: str,
    experiment: str,
    name: str,
    *,
    tags: Mapping[str, str],
    params: Mapping[str, Any] | None = None,
    known: RunAddress | None = None,
) -> RunAddress:
    """Creates a run, or reopens the `known` one where it still exists in this store."""
    client, tags = connect(uri), {**tags, NAME: name}  # first: importing MLflow itself would set up its logging
    run = _find(client, known.run_id) if known and known.tracking_uri == uri else None
    if run is None:
        experiment_id = _training_experiment(client, uri, experiment)
        run = client.create_run(experiment_id, run_name=name, tags=tags | _signs(tags))
    else:
        client.update_run(run.info.run_id, status="RUNNING")
        _set_tags(client, run, tags)
    _add_params(client, run, params or {})
    return RunAddress(uri, run.info.experiment_id, run.info.run_id)


def upload(
    address: RunAddress,
    *,
    rows: Sequence[Row] = (),
    scores: Row | None = None,
    images: Mapping[int, Path] | None = None,
    files: Mapping[Path, str] | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    inputs: Sequence[DataInput] = (),
    log_model: Callable[[], str] | None = None,
    status: str | None = None,
) -> int:
    """Brings a run on the server up to what its directory holds; safe to repeat. Returns the rows that were missing.

    Args:
        rows: Metrics of training, which stay as they were sent.
        scores: Metrics that may be measured again, one row; sent where the last value differs.
        images: PNG files by iteration.
        files: Artifacts, each with the folder it goes to, "" for none; they replace older ones of the same name.
        tags: Name and description among them stay as they are where somebody has edited them in MLflow.
        params: Those that are there already stay, for MLflow changes none.
        log_model: Called inside the active run where it has no model yet; returns its URI. What fails is warned of.
        status: FINISHED, FAILED or KILLED (stopped, to be continued); None: as it is.
    """
    run = RunSender(address)
    missing = run.send_rows(rows) + (run.send_scores(scores) if scores else 0)
    for iteration, path in (images or {}).items():
        run.send_image(iteration, path)
    for path, folder in (files or {}).items():
        run.client.log_artifact(address.run_id, str(path), folder or None)
    there, tags = run.client.get_run(address.run_id), dict(tags or {})
    _add_params(run.client, there, params or {})
    if inputs:
        run.client.log_inputs(address.run_id, [_dataset_input(each) for each in inputs])
    if log_model and "model_uri" not in there.data.tags:
        try:
            tags["model_uri"] = log_model_in_run(address, log_model)
        except UserError as error:
            log.warning("%s", error)
            tags["model_error"] = str(error)
    _set_tags(run.client, there, tags)
    if status not in (None, there.info.status):  # else it would have ended just now
        run.client.set_terminated(address.run_id, status)
    return missing


class RunSender:
    """Sends to a run on the server what that lacks, and remembers what it has.

    Rows come with the names of a run directory and arrive with those of MLflow (`names.grouped`).
    """

    def __init__(self, address: RunAddress) -> None:
        self.client = connect(address.tracking_uri)
        self.run_id = address.run_id
        self._steps: dict[str, set[int]] = {}
        self._images: set[int] | None = None

    def send_rows(self, rows: Sequence[Row]) -> int:
        """Sends what is missing of `rows`; returns how many of them had something missing."""
        from mlflow.entities import Metric

        missing = [
            Metric(name, value, int(row["time"]), int(row["iteration"]))
            for row in rows
            for name, value in _shown(row).items()
            if int(row["iteration"]) not in self._known(name)
        ]
        for start in range(0, len(missing), _METRICS):
            batch = missing[start : start + _METRICS]
            self.client.log_batch(self.run_id, metrics=batch)
            for metric in batch:
                self._known(metric.key).add(metric.step)
        return len({metric.step for metric in missing})

    def send_scores(self, row: Row) -> bool:
        """Sends those metrics of a row whose last value in the store is another; returns whether there were any."""
        from mlflow.entities import Metric

        last = self.client.get_run(self.run_id).data.metrics
        changed = [
            Metric(name, value, int(row["time"]), int(row["iteration"]))
            for name, value in _shown(row).items()
            if last.get(name) != value
        ]
        if changed:
            self.client.log_batch(self.run_id, metrics=changed)
        return bool(changed)

    def send_image(self, iteration: int, path: Path) -> None:
        from PIL import Image

        if self._images is None:
            names = [Path(item.path).name for item in self.client.list_artifacts(self.run_id, "images")]
            self._images = {int(match[1]) for name in names if (match := _IMAGE_NAME.match(name))}
        if iteration not in self._images:
            self.client.log_image(self.run_id, Image.open(path), key=IMAGE_KEY, step=iteration, synchronous=True)
            self._images.add(iteration)

    def _known(self, name: str) -> set[int]:
        if name not in self._steps:
            self._steps[name] = {metric.step for metric in self.client.get_metric_history(self.run_id, name)}
        return self._steps[name]


def find_experiment(client: "MlflowClient", name: str) -> Any | None:
    """The experiment of that name; None where there is none; raises UserError where it was deleted."""
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise UserError(f"the experiment {name!r} was deleted there; restore it ({restore}), or use experiment=…")
    return found


def _find(client: "MlflowClient", run_id: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None  # deleted in the UI: a new one is opened


def _training_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment, which is created where there is none.

    MLflow opens it as one of training, unless somebody has chosen another kind; left alone it guesses, or asks.
    Artifacts of an SQLite store lie beside it, wherever a later command is started.
    """
    kind = "custom_model_development"
    if found := find_experiment(client, name):
        if _KIND not in found.tags:
            client.set_experiment_tag(found.experiment_id, _KIND, kind)
        return str(found.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / "mlruns" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location, tags={_KIND: kind}))


def _shown(row: Row) -> Row:
    """The metrics of a row by their names in MLflow."""
    return {grouped(name): value for name, value in row.items() if name not in ("iteration", "time")}


def _add_params(client: "MlflowClient", run: Any, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    missing = [Param(key, str(value)) for key, value in params.items() if key not in run.data.params]
    for start in range(0, len(missing), _PARAMS):
        client.log_batch(run.info.run_id, params=missing[start : start + _PARAMS])


def _set_tags(client: "MlflowClient", run: Any, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    edited = [key for key in (NAME, NOTE) if key in tags and not _is_ours(run.data.tags, key, tags[key])]
    tags = {key: value for key, value in tags.items() if key not in edited}
    tags |= _signs(tags)
    name = tags.pop(NAME, None)  # as a tag it would leave the name as it is
    client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    if name is not None and name != run.info.run_name:
        client.update_run(run.info.run_id, name=name)


def _signs(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that tell name and description as we write them from what somebody makes of them on MLflow's pages."""
    return {_SIGN + key: _sign(tags[key]) for key in (NAME, NOTE) if key in tags}


def _is_ours(tags: Mapping[str, str], key: str, text: str) -> bool:
    """True if nobody has edited what `text` would replace; earlier versions named a run as the folder it ends with."""
    there, sign = tags.get(key), tags.get(_SIGN + key)
    return there is None or sign == _sign(there) or (sign is None and text.endswith(f"({there})"))


def _sign(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _dataset_input(about: DataInput) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    profile = json.dumps({"images": about.images})
    dataset = Dataset(about.name, about.digest, "local", json.dumps({"uri": about.name}), profile=profile)
    return DatasetInput(dataset, tags=[InputTag(MLFLOW_DATASET_CONTEXT, about.use)])
