"""Runs come from an MLflow experiment, also where their directories are gone, and the report goes into the store."""

import shlex
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.configs import TINY
from tests.support.finished import finished_run
from tests.support.object_store import ObjectStore
from tests.support.stores import new_store
from zskt_dist.commands import shared as cli
from zskt_dist.report import __main__ as report
from zskt_dist.report.gaps import evaluation_gaps, table_1_gaps
from zskt_dist.report.runs import find_runs, group_runs
from zskt_dist.report.store import stored_runs
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import join, remove_folder, working_copy


def test_a_report_from_an_experiment_whose_directories_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    for name in ("out/.env", "out/data/mine.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("mine")
    arguments = [*TINY, "iterations=2", "supervised.iterations=2", "name=run", f"tracking.uri={store}"]
    assert cli.training_command("train", "", arguments) == 0
    shutil.rmtree(tmp_path / "runs")
    assert report.main(["--experiment", "digits", "--uri", store, "--out", "out", "--title", "From MLflow"]) == 0
    markdown = (tmp_path / "out/report.md").read_text()
    assert "| digits | zero-shot | lenet → lenet | 1 |" in markdown
    assert "figure_3_digits-lenet-lenet.png" in markdown
    assert "`python -m zskt_dist.distill " in markdown, "what would fill a gap"
    assert "--config" not in markdown, "the downloaded configuration is gone by now"
    client = MlflowClient(tracking_uri=store)
    (logged,) = client.search_runs([client.get_experiment_by_name("reports").experiment_id])
    there = {item.path for item in client.list_artifacts(logged.info.run_id)}
    assert there == {"report.md", "report.html", "figures", "tables"}, "nothing else of the folder"
    capsys.readouterr()
    assert report.main(["--experiment", "none", "--uri", store, "--out", "out"]) == 2
    assert "--experiment none: no such experiment" in capsys.readouterr().err


def test_runs_of_a_store_are_those_that_it_has(object_store: ObjectStore) -> None:
    """Whatever is left of others in this machine's working copy."""
    place = object_store.uri()
    for seed, name in enumerate(("kept", "kept.before-20260101-120000", "deleted")):
        finished_run(working_copy(place), "train", seed, 0.8, f"runs_dir={place}", name=name)
        RunDirectory(join(place, "cifar10", name)).mirror.push()
    kept, aside, deleted = (join(place, "cifar10", name) for name in ("kept", "kept.before-20260101-120000", "deleted"))
    remove_folder(deleted)
    assert working_copy(deleted).exists()
    assert stored_runs(place) == stored_runs(kept) == [kept]
    assert stored_runs(aside) == [aside]
    groups = group_runs(find_runs(stored_runs(place)))
    assert [run.directory.location for group in groups for run in group.runs] == [kept]
    (gap,) = evaluation_gaps(groups)
    assert shlex.split(gap.command)[-1] == kept
    assert not [gap for gap in table_1_gaps(groups) if str(working_copy(place)) in gap.command]
