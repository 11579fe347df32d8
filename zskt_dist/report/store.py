"""Runs from an MLflow store or an object store, and the report into the former."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from zskt_dist.errors import UserError
from zskt_dist.extras import lacking
from zskt_dist.report.folder import files_of
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import finished_below, is_uri
from zskt_dist.tracking.mlflow.experiments import download_runs
from zskt_dist.tracking.mlflow.runs import open_run, upload
from zskt_dist.tracking.mlflow.store import reached, required_uri, tracking_uri

log = logging.getLogger(__name__)


class Fetched(NamedTuple):
    """Folders of runs, and the one that holds those of them which are downloads."""

    folders: list[Path]
    downloads: Path


@contextmanager
def fetch_runs(uri: str | None, experiments: Sequence[str]) -> Iterator[Fetched]:
    """Folders of the experiments' runs: their own directories where they are here, else downloaded ones.

    Raises:
        UserError: the store cannot be reached, or has no such experiment.
    """
    with tempfile.TemporaryDirectory() as folder:
        folders: list[Path] = []
        for experiment in experiments:
            store = required_uri(uri)
            with reached(store):
                found = download_runs(store, experiment, Path(folder))
            if found is None:
                raise UserError(f"--experiment {experiment}: no such experiment at {store}")
            folders += found
        yield Fetched(folders, Path(folder))


def stored_runs(location: str) -> list[Path | str]:
    """A folder as it is; of a URI those of all finished runs in and below it, their seeds' included, as fetched.

    What `--fresh` has put aside is passed over, unless it is named itself.

    Raises:
        UserError: there is no such folder, or the store cannot be reached.
    """
    if not is_uri(location):
        if not Path(location).is_dir():
            raise UserError(f"{location}: no such folder")
        return [Path(location)]
    base = location.partition("?")[0].rstrip("/")
    waiting = [run for run in finished_below(location) if ".before-" not in run.removeprefix(base)]
    found: list[Path | str] = []
    while waiting:
        directory = RunDirectory(waiting.pop(0))
        directory.mirror.pull(checkpoints=False)
        found.append(directory.location)
        seeds = [directory.sibling(name).location for name in (directory.finished() or {}).get("runs", [])]
        waiting += [run for seed in seeds if seed not in (*found, *waiting) for run in finished_below(seed)]
    return found


def log_report(uri: str | None, folder: Path, title: str) -> None:
    """The report becomes a run of the experiment `reports`; a warning where MLflow cannot be reached.

    Only its own files do: the folder may be the user's.
    """
    store = tracking_uri(uri)
    if store is None:
        return
    if problem := lacking("mlflow"):
        log.warning("the report is in %s only: its record %s", folder, problem)
        return
    try:
        files = {folder / name: name.rpartition("/")[0] for name in files_of(folder) or ()}
        upload(open_run(store, "reports", title, tags={"report": title}), files=files, status="FINISHED")
    except Exception as error:
        log.warning("the report was not logged to MLflow at %s: %s", store, error)
