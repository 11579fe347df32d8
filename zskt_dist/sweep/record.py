"""A sweep in MLflow: a parent run, the trials nested under it, the best one tagged."""

import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import yaml

from zskt_dist.config import Config
from zskt_dist.errors import UserError
from zskt_dist.files import write_atomic
from zskt_dist.launch.mlflow_run import attempt, open_directory, present
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.result import SweepResult
from zskt_dist.sweep.space import Sweep
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.mlflow.runs import upload
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
    tags = {"command": "sweep", "title": sweep.title, "selected_by": sweep.select_by}
    return attempt(uri, partial(open_directory, directory, uri, tags), _REMEDY)


def close_parent(
    address: RunAddress | None,
    table: pd.DataFrame,
    runs: Mapping[str, RunDirectory],
    result: SweepResult,
    report: Path,
    *,
    stopped: bool,
) -> None:
    """Tables and figures go to the parent; children learn their pooled score, and the best one that it is it.

    Args:
        stopped: The sweep was asked to, and is to be continued: KILLED, in MLflow's words.
    """
    if address is not None:
        uploading = partial(_upload, address, table, runs, result, report, "KILLED" if stopped else "FINISHED")
        attempt(address.tracking_uri, uploading, _REMEDY)


def _upload(
    address: RunAddress,
    table: pd.DataFrame,
    runs: Mapping[str, RunDirectory],
    result: SweepResult,
    report: Path,
    status: str,
) -> None:
    best: Mapping[str, object] = result["best"] or {}
    for trial in table.to_dict("records"):
        run = runs[trial["config_hash"]]
        if child := RunAddress.read(run.tracking):
            tags = {
                "mlflow.parentRunId": address.run_id,  # also where the trial could not see the sweep's folder
                "sweep": result["name"],
                "trial": str(trial["trial"]),
                "state": trial["state"],
                "best": str(trial["trial"] == best.get("trial")).lower(),
                "selected_by": result["select_by"],
            }
            scores = None if pd.isna(trial["score"]) else _row(int(trial["iteration"]), {"score": trial["score"]})
            upload(child, scores=scores, tags=tags)
            _close_child(child, run, trial["state"])
    numbers = {f"best_{key}": value for key, value in best.items() if isinstance(value, float)}
    shown = {path: name for name in ("tables", "figures") for path in sorted((report / name).glob("*.*"))}
    upload(
        address,
        scores=_row(0, numbers | {"trials": result["trials"], "failed": result["failed"]}),
        files=present([report / name for name in ("report.md", "report.html", _SPACE)]) | shown,
        tags={"state": result["status"]},
        status=status,
    )


def _row(iteration: int, scores: Mapping[str, float]) -> Row:
    return {"iteration": iteration, "time": round(time.time() * 1000), **scores}


def _close_child(child: RunAddress, run: RunDirectory, state: str) -> None:
    """A run whose process has died still counts as running; one that another command is working on does."""
    if state in _STATUS and run.finished() is None:
        with suppress(UserError), run.driven():
            upload(child, status=_STATUS[state])
