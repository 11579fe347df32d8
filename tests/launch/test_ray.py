"""Real Ray: a run loses a worker, is stopped, becomes a job that is stopped, goes on, and is as if nothing had been."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
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
SETTINGS = [*TINY, "iterations=240", "evaluation.every=60", f"checkpoint.every={EVERY}", f"name={RUN}"]
SETTINGS += ["student.arch=wrn-10-1", "loss.beta=0", "launch.workers=2"]
MAX_PACKAGE_MIB = 2.0


def _submit(
    *arguments: str, cluster: RayCluster, home: Path = REPOSITORY, options: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Exit code and output of `ray job submit` of the repository with `zskt_dist.train`, as it stands."""
    entrypoint = [sys.executable, "-m", "zskt_dist.train", *arguments]
    variables = json.dumps({"env_vars": {"HOME": str(home)}})
    command = [RAY, "job", "submit", "--working-dir", ".", "--runtime-env-json", variables, *options, "--", *entrypoint]
    environment = os.environ | cluster.environment
    answer = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    return answer.returncode, answer.stdout + answer.stderr


@pytest.mark.timeout(900)
def test_whatever_happens_to_a_run_it_ends_with_the_same_bits(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Jobs that name no folder for their runs have them in the home, and so go on with those in `folder`.
    local, folder = tmp_path / "local", tmp_path / "home" / "zskt"
    local.mkdir()
    folder.mkdir(parents=True)
    code, output = run("train", *SETTINGS, folder=local)
    assert code == 0, output
    expected = read_result(local)

    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    begun = Run(folder, ray_cluster.address, SETTINGS)
    try:
        killed = strike(begun, "a worker is killed", kill_worker, at=EVERY + 5)
        assert killed.checkpoint >= EVERY
        assert killed.checkpoint < killed.went_on_at, "the new workers start from the last checkpoint"
        assert killed.wasted <= EVERY
        assert killed.workers == 2
        begun.process.send_signal(signal.SIGTERM)
        assert begun.process.wait(timeout=120) == 143
    finally:
        begun.kill()
    log = (folder / "log").read_text()
    assert "the same command continues" in log
    assert (begun.checkpoint(), begun.directory.joinpath("result.json").exists()) == (_stopped_at(log), False)

    _a_job_goes_on_and_is_stopped_within_its_grace(begun, ray_cluster)
    saved = begun.checkpoint()
    code, output = _submit(*SETTINGS, "--json", "answer.json", cluster=ray_cluster, home=folder.parent)
    assert code == 0, output
    assert f"run directory      {begun.directory}" in output, "the plan, in the job's log"
    assert f"student  {begun.directory}/student.safetensors" in output
    assert "PreemptionWatcher" not in output
    assert "test accuracy" in output, "the job's log, with the summary, reaches whoever submitted it"
    result = read_result(folder)
    assert json.loads((folder / "answer.json").read_text()) == result
    assert result["resumed_from"] == saved
    assert result["launcher"] == "ray"
    assert result["world_size"] == 2
    assert result["student"]["sha256"] == expected["student"]["sha256"]


def _a_job_goes_on_and_is_stopped_within_its_grace(run: Run, ray_cluster: RayCluster) -> None:
    began_at, shown = run.checkpoint(), len(run.shown)
    options = ("--no-wait", "--submission-id", "first")
    code, output = _submit(*SETTINGS, cluster=ray_cluster, home=run.folder.parent, options=options)
    assert code == 0, output
    deadline = time.monotonic() + 240
    client = JobSubmissionClient(ray_cluster.environment["RAY_API_SERVER_ADDRESS"])
    try:
        while len(run.shown) < shown + 3:
            assert client.get_job_status("first") in (JobStatus.PENDING, JobStatus.RUNNING), client.get_job_logs(
                "first"
            )
            assert time.monotonic() < deadline, client.get_job_logs("first")
            time.sleep(0.1)
    finally:
        client.stop_job("first")
    while client.get_job_status("first") == JobStatus.RUNNING:
        assert time.monotonic() < deadline, client.get_job_logs("first")
        time.sleep(0.1)
    assert client.get_job_status("first") == JobStatus.STOPPED
    log = client.get_job_logs("first")
    assert "the same command continues" in log, log
    assert run.shown[shown] > began_at, "it went on from where the command was stopped"
    assert run.checkpoint() == _stopped_at(log), "saved in the seconds after the stop"
    assert not (run.directory / "result.json").exists()


def _stopped_at(log: str) -> int:
    (iteration,) = re.findall(r"stopped at iteration (\d+) of 240", log)
    return int(iteration)


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
    code, output = _submit("loss.bta=1", cluster=ray_cluster)
    assert code == 1, output
    assert "error: loss.bta=1: no such key" in output
    assert "exit code 2" in output
    assert "Traceback" not in output
