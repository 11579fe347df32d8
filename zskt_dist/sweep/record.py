"""A sweep in MLflow: a parent run, the trials nested under it, the best one tagged."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import yaml

from zskt_dist.config import Config
from zskt_dist.errors import UserError
from zskt_dist.files import write_atomic
from zskt_dist.launch.mlflow_facts import run_name, source_tags, swept_params
from zskt_dist.launch.mlflow_run import attempt, open_directory, present
from zskt_dist.launch.patience import patience
from zskt_dist.runs.directory import Differs, RunDirectory
from zskt_dist.runs.result import SweepResult
from zskt_dist.sweep.space import Sweep, Trial
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.mlflow.runs import NAME, NOTE, upload
from zskt_dist.tracking.mlflow.store import RunAddress, tracking_uri

_SPACE = "sweep.yaml"
_STATUS = {"failed": "FAILED", "stopped": "FINISHED", "interrupted": "KILLED", "running": "KILLED"}
"""MLflow's word for trials that need not have closed their run, or not in this sense."""
_REMEDY = "the same command records the sweep once it can"


def open_parent(directory: RunDirectory, sweep: Sweep, config: Config) -> RunAddress | None:
    """The sweep's run, in the experiment of its trials, which is created here once; None where MLflow is not there.

    Args:
        config: Of the first trial.
    """
    # An artifact: a space may change between two commands, parameters of MLflow may not.
    write_atomic(directory.path / _SPACE, yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False))
    uri = tracking_uri(config.tracking.uri)
    if uri is None:
        return None
    patience.begin(config.tracking.patience)
    tags = {"command": "sweep", "title": sweep.title, "selected_by": sweep.select_by, **source_tags("sweep")}
    return attempt(uri, partial(open_directory, directory, uri, tags), _REMEDY)


def close_parent(
    address: RunAddress | None,
    trials: Sequence[Trial],
    rows: Sequence[Mapping[str, Any]],
    result: SweepResult,
    directory: RunDirectory,
) -> None:
    """Tables and figures go to the parent; children learn their pooled score, and the best one that it is it.

    A sweep that was asked to stop, and is to be continued, is KILLED, in MLflow's words.

    Args:
        rows: Of the trials' table.
    """
    best: Mapping[str, object] = result["best"] or {}

    def uploading() -> None:
        assert address
        for trial, row in zip(trials, rows, strict=True):
            if child := RunAddress.read(trial.run.tracking):
                swept = tuple(trial.settings)
                tags = {
                    NAME: run_name(trial.run.path.name, "train", trial.config, Differs(swept=swept)),
                    "mlflow.parentRunId": address.run_id,  # also where the trial could not see the sweep's folder
                    "sweep": result["name"],
                    "trial": str(trial.number),
                    "state": trial.state,
                    "best": str(trial.number == best.get("trial")).lower(),
                    "selected_by": result["select_by"],
                }
                scores = None if row["score"] is None else _row(row["iteration"], {"score": row["score"]})
                upload(child, scores=scores, tags=tags, params=swept_params(trial.config, swept))
                _close_child(child, trial)
        numbers = {f"best_{key}": value for key, value in best.items() if isinstance(value, float)}
        files = present([directory.path / name for name in ("report.md", "report.html", _SPACE)])
        files |= {path: name for name in ("tables", "figures") for path in sorted((directory.path / name).glob("*.*"))}
        upload(
            address,
            scores=_row(0, numbers | {"trials": result["trials"], "failed": result["failed"]}),
            files=files,
            tags={"state": result["status"], NOTE: _description(result)},
            status="KILLED" if directory.stop.exists() else "FINISHED",
        )

    if address is not None:
        patience.begin(patience.seconds * (1 + len(trials)))
        attempt(address.tracking_uri, uploading, _REMEDY)


def _description(result: SweepResult) -> str:
    best, finished = result["best"], f"{result['finished']} of {result['trials']} trials finished."
    text = f"{result['sweep']['title']}: {finished}"
    if best is None:
        return text
    settings = ", ".join(f"{key}={value}" for key, value in best["settings"].items())
    chosen = f"trial {best['trial']} ({best['run']}): {settings}"
    return f"{text} The best one, selected by {result['select_by']}, is {chosen}."


def _row(iteration: int, scores: Mapping[str, float]) -> Row:
    return {"iteration": iteration, "time": round(time.time() * 1000), **scores}


def _close_child(child: RunAddress, trial: Trial) -> None:
    """A run whose process has died still counts as running; one that another command is working on does."""
    if trial.state in _STATUS and trial.run.finished() is None:
        with suppress(UserError), trial.run.driven():
            upload(child, status=_STATUS[trial.state])
