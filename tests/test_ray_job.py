"""In a Ray job, whose folder Ray deletes, what is written lies elsewhere; stood in for by Ray's variables."""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from zskt_dist import logs, ray_job
from zskt_dist.config import load_config
from zskt_dist.config.graph import load_graph
from zskt_dist.errors import ConfigError
from zskt_dist.launch.preflight import Preflight
from zskt_dist.tracking.mlflow.store import tracking_uri
from zskt_dist.training.job import Job

Begin = Callable[..., Path]


@pytest.fixture(name="job")
def _job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Puts this process into the folder of a job, which it returns; the home is `tmp_path/home`."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    def begin(*, copied: bool = True, place: str = "session/working_dir_files/_ray_pkg_1") -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        runtime = {"working_dir": "gcs://_ray_pkg_1.zip"} if copied else {}
        monkeypatch.setenv("PYTHONPATH", f"{folder}:/elsewhere")
        monkeypatch.setenv(ray_job.JOB, json.dumps({"runtime_env": runtime, "metadata": {}}))
        return folder

    return begin


@pytest.mark.parametrize("place", ["session/working_dir_files/_ray_pkg_1", "session/copies/1"])
def test_what_a_job_writes_lies_in_the_home(
    place: str, job: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(place=place)
    home = tmp_path / "home" / "zskt"
    config = load_config(None, ["name=a"])
    assert config.runs_dir == str(home / "runs")
    assert load_config(None, ["runs_dir=../out"]).runs_dir == str(tmp_path / "home" / "out")
    assert Job.plan("train", config).goal.run == str(home / "runs" / config.experiment / "a")
    assert [tracking_uri(uri) for uri in (None, "sqlite:///my/a.db", "file:mlruns", "./mlruns")] == [
        f"sqlite:///{home}/mlflow.db",
        f"sqlite:///{home}/my/a.db",
        f"file:{home}/mlruns",
        f"{home}/mlruns",
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///b.db")
    assert tracking_uri(None) == f"sqlite:///{home}/b.db"
    assert load_graph(Path("two_cores/graph"), [])[0].report.startswith(str(home))


@pytest.mark.parametrize("location", ["/shared/runs", "s3://bucket/runs"])
def test_what_lasts_stays_where_it_is(location: str, job: Begin) -> None:
    job()
    assert load_config(None, [f"runs_dir={location}"]).runs_dir == location
    uris = ("none", "http://mlflow:5000", "databricks", "databricks://me", "sqlite:////a.db", "file:///a")
    assert [tracking_uri(uri) for uri in uris] == [None, *uris[1:]]


def test_a_folder_that_is_no_copy_lasts(job: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(copied=False, place="app")
    assert ray_job.in_job()
    assert load_config(None).runs_dir == "runs"
    job(place="session/copies/2")
    monkeypatch.chdir(tmp_path)  # the job's command may begin with `cd`
    assert load_config(None).runs_dir == "runs"
    monkeypatch.delenv(ray_job.JOB)
    assert not ray_job.in_job()
    assert tracking_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"


def test_in_a_pod_a_relative_path_is_refused(job: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    job()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConfigError, match=r"runs_dir='runs': .*lost with the pod.*/shared/runs.*s3://bucket/runs"):
        load_config(None)
    assert load_config(None, ["runs_dir=/shared/runs"]).runs_dir == "/shared/runs"
    with pytest.raises(ConfigError, match=r"tracking.uri='mlflow.db': .*tracking.uri=none"):
        tracking_uri(None)


def test_options_of_a_job(job: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def parse() -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        parser.add_argument("run_dir")
        parser.add_argument("--json", type=Path)
        parser.add_argument("--out")
        return logs.parse(parser, ["runs/digits/a", "--json", "a.json"])

    caplog.set_level(logging.INFO, "zskt_dist")
    assert parse().json == Path("a.json")
    assert not caplog.records
    job()
    home, options = tmp_path / "home" / "zskt", parse()
    assert (options.run_dir, options.json, options.out) == (str(home / "runs/digits/a"), home / "a.json", None)
    assert home.is_dir()
    (record,) = caplog.records
    assert record.levelno == logs.NOTE
    assert str(home) in record.getMessage()


def test_a_jobs_launcher_is_ray_unless_another_is_named(job: Begin, tmp_path: Path) -> None:
    assert load_config(None).launch.kind == "local"
    for name in ("no_data", "fashion_mnist"):  # shipped ones name none
        assert load_config(name).launch.kind == "local"
    job()
    for name in (None, "no_data", "digits"):
        assert load_config(name).launch.kind == "ray"
    assert load_config(None, ["launch.kind=local"]).launch.kind == "local"
    file = tmp_path / "local.yaml"
    file.write_text("launch:\n  kind: local\n")
    assert load_config(file).launch.kind == "local"
    file.write_text("launch:\n  workers: 2\n")
    assert (load_config(file).launch.kind, load_config(file).launch.workers) == ("ray", 2)
    file.write_text("launch: null\n")
    with pytest.raises(ConfigError):
        load_config(file)


def test_what_a_job_reads_is_in_its_copy(job: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    folder = job()
    config = load_config(None, ["data.name=digits", "teacher.checkpoint=t.pt"])
    (problem,) = Preflight(Job.plan("train", config)).problems()
    assert str(folder / "t.pt") in str(problem)
