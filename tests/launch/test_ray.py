"""Real Ray: a job loses a worker, is stopped, goes on as a command, and its student is as if nothing had been."""

import os
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobStatus, JobSubmissionClient

from benchmarks.faults import RUN, Run, kill_worker, strike
from tests.support.commands import REPOSITORY, read_result, run
from tests.support.configs import TINY
from tests.support.ray_cluster import RAY, RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EVERY = 20
SETTINGS = [*TINY, "iterations=160", "evaluation.every=80", f"checkpoint.every={EVERY}", f"name={RUN}"]
SETTINGS += ["student.arch=wrn-10-1", "loss.beta=0", "launch.workers=2"]
MAX_PACKAGE_MIB = 2.0


class SubmittedRun(Run):
    """The training command as a job: `ray job submit` of the repository, which shows the job's log and ends with it."""

    def start(self) -> None:
        self.process = subprocess.Popen(
            _submission(*self.arguments, f"runs_dir={self.folder / 'runs'}", options=("--submission-id", RUN)),
            cwd=REPOSITORY,
            stdout=(self.folder / "log").open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        with suppress(RuntimeError):  # there is no such job
            JobSubmissionClient().stop_job(RUN)
        super().kill()


def _submission(*arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    entrypoint = [sys.executable, "-m", "zskt_dist.train", *arguments, "launch.kind=ray"]
    return [RAY, "job", "submit", "--working-dir", ".", *options, "--", *entrypoint]


@pytest.mark.timeout(900)
def test_whatever_happens_to_a_run_it_ends_with_the_same_bits(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, folder = tmp_path / "local", tmp_path / "ray"
    local.mkdir()
    folder.mkdir()
    code, output = run("train", *SETTINGS, folder=local)
    assert code == 0, output
    expected = read_result(local)

    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    job = SubmittedRun(folder, ray_cluster.address, SETTINGS)
    try:
        killed = strike(job, "a worker is killed", kill_worker, at=EVERY + 5)
        assert killed.checkpoint >= EVERY
        assert killed.checkpoint < killed.went_on_at, "the new workers start from the last checkpoint"
        assert killed.wasted <= EVERY
        assert killed.workers == 2
        _stop_within_its_grace(job)
    finally:
        job.kill()
    saved = job.checkpoint()

    code, output = run("train", *SETTINGS, "launch.kind=ray", folder=folder)
    assert code == 0, output
    assert "test accuracy" in output
    result = read_result(folder)
    assert result["resumed_from"] == saved
    assert result["launcher"] == "ray"
    assert result["world_size"] == 2
    assert result["student"]["sha256"] == expected["student"]["sha256"]


def _stop_within_its_grace(job: SubmittedRun) -> None:
    """Ray gives a job that it stops three seconds."""
    client = JobSubmissionClient()
    client.stop_job(RUN)
    job.process.wait(timeout=60)
    assert client.get_job_status(RUN) == JobStatus.STOPPED
    log = (job.folder / "log").read_text()
    assert "the same command continues" in log, log
    (stopped_at,) = re.findall(r"stopped at iteration (\d+) of 160", log)
    assert job.checkpoint() == int(stopped_at), "saved in the seconds after the stop"
    assert not (job.directory / "result.json").exists()


def test_what_travels_is_small_and_whole(tmp_path: Path) -> None:
    """The package that Ray makes of the repository: all code and configurations, no data, runs or environments."""
    package = tmp_path / "package.zip"
    create_package(str(REPOSITORY), package, include_gitignore=True)
    assert package.stat().st_size < MAX_PACKAGE_MIB * 2**20
    names = set(zipfile.ZipFile(package).namelist())
    code = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "zskt_dist").rglob("*.py")}
    assert code <= names
    assert {"tune/sweep.py", "configs/digits.yaml"} <= names
    tops = {name.split("/")[0] for name in names}
    assert not tops & {"data", "runs", "mlruns", ".venv", ".git", "docs", "tests"}


def test_a_mistake_fails_the_job_with_its_message(ray_cluster: RayCluster) -> None:
    environment = os.environ | ray_cluster.environment
    command = _submission("loss.bta=1")
    answer = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    output = answer.stdout + answer.stderr
    assert answer.returncode == 1, output
    assert "error: loss.bta=1: no such key" in output
    assert "exit code 2" in output
    assert "Traceback" not in output
