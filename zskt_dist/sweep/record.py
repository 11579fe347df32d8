"""A sweep in MLflow: a parent run, the trials nested under it, the best one tagged."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from zskt_dist.config import Config
from zskt_dist.errors import UserError, one_line
from zskt_dist.files import read_json, write_atomic, write_json
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.space import Sweep
from zskt_dist.tracking.mlflow import RunAddress, end_run, log_values, open_run, set_tags, tracking_uri, upload

log = logging.getLogger(__name__)

_SPACE = "sweep.yaml"
_STATUS = {"failed": "FAILED", "stopped": "FINISHED", "interrupted": "KILLED", "running": "KILLED"}
"""MLflow's word for trials that need not have closed their run, or not in this sense."""


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
    known = read_json(directory.tracking)
    try:
        address = open_run(
            uri,
            config.experiment,
            directory.path.name,
            params={},
            tags={"command": "sweep", "title": sweep.title, "selected_by": sweep.select_by},
            known=RunAddress.of(known) if known else None,
        )
    except Exception as error:
        log.warning("%s", _lost(uri, error))
        return None
    write_json(directory.tracking, address._asdict())
    return address


def close_parent(
    address: RunAddress | None,
    table: pd.DataFrame,
    runs: Mapping[str, RunDirectory],
    result: dict[str, Any],
    report: Path,
    *,
    stopped: bool,
) -> None:
    """Tables and figures go to the parent; children learn their pooled score, and the best one that it is it.

    Args:
        stopped: The sweep was asked to, and is to be continued: KILLED, in MLflow's words.
    """
    if address is None:
        return
    best = (result["best"] or {}).get("trial")
    try:
        for row in table.to_dict("records"):
            known = read_json(runs[row["config_hash"]].tracking)
            if not known:
                continue
            child = RunAddress.of(known)
            nested = {"mlflow.parentRunId": address.run_id}  # also where the trial could not see the sweep's folder
            chosen = nested | {"best": str(row["trial"] == best).lower(), "selected_by": result["select_by"]}
            set_tags(child, {"sweep": result["name"], "trial": str(row["trial"]), "state": row["state"], **chosen})
            _close_child(child, runs[row["config_hash"]], row["state"])
            if pd.notna(row["score"]):
                log_values(child, {"score": row["score"]}, step=int(row["iteration"]))
        numbers = {f"best_{key}": value for key, value in (result["best"] or {}).items() if isinstance(value, float)}
        log_values(address, numbers | {"trials": result["trials"], "failed": result["failed"]})
        folders = {name: sorted((report / name).glob("*.*")) for name in ("tables", "figures")}
        files = [report / name for name in ("report.md", "report.html", _SPACE)]
        upload(
            address,
            rows=[],
            scores={},
            images={},
            files=[path for path in files if path.exists()],
            folders=folders,
            tags={"state": result["status"]},
            log_model=None,
            status="KILLED" if stopped else "FINISHED",
        )
    except Exception as error:
        log.warning("%s", _lost(address.tracking_uri, error))


def _close_child(child: RunAddress, run: RunDirectory, state: str) -> None:
    """A run whose process has died still counts as running; one that another command is working on does."""
    if state in _STATUS and run.finished() is None:
        with suppress(UserError), run.driven():
            end_run(child, _STATUS[state])


def _lost(uri: str, error: Exception) -> str:
    return (
        f"MLflow at {uri} cannot be reached ({one_line(error)}). Nothing is lost: "
        "the same command records the sweep once it can"
    )
