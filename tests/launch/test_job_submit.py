"""`ray job submit` against a real cluster: what travels, exit codes and logs, stopping within Ray's grace, going on."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobStatus, JobSubmissionClient

from tests.support.commands import REPOSITORY, read_result
from tests.support.configs import TINY
from tests.support.ray_cluster import DASHBOARD, RAY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ADDRESS = f"http://127.0.0.1:{DASHBOARD}"
MAX_PACKAGE_MIB = 2.0


def _submit(*arguments: str, environment: dict[str, str], options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output of `ray job submit` of the repository with `zskt_dist.train`."""
    entrypoint = [sys.executable, "-m", "zskt_dist.train", *arguments, "launch.kind=ray"]
    command = [RAY, "job", "submit", "--address", ADDRESS, "--working-dir", ".", *options, "--", *entrypoint]
    answer = subprocess.run(
        command, cwd=REPOSITORY, env=_environment(environment), capture_output=True, text=True, timeout=400, check=False
    )
    return answer.returncode, answer.stdout + answer.stderr


def _environment(of_cluster: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        "RAY_AUTH_MODE": of_cluster["RAY_AUTH_MODE"]
    }


def test_a_job_is_stopped_within_its_grace_and_goes_on_when_submitted_again(
    ray_cluster: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "digits" / "run"
    # No checkpoints on the way: what the second job continues from was saved in the seconds after the stop.
    arguments = [
        *TINY,
        "name=run",
        f"runs_dir={tmp_path / 'runs'}",
        "iterations=400",
        "checkpoint.every=0",
        "launch.workers=2",
    ]
    arguments += ["evaluation.every=200"]
    code, output = _submit(*arguments, environment=ray_cluster, options=("--no-wait", "--submission-id", "first"))
    assert code == 0, output

    deadline = time.monotonic() + 240
    client = JobSubmissionClient(ADDRESS)
    while _iteration(run) < 20:
        assert client.get_job_status("first") in (JobStatus.PENDING, JobStatus.RUNNING), client.get_job_logs("first")
        assert time.monotonic() < deadline, client.get_job_logs("first")
        time.sleep(0.1)
    client.stop_job("first")
    while client.get_job_status("first") == JobStatus.RUNNING:
        assert time.monotonic() < deadline, client.get_job_logs("first")
        time.sleep(0.1)
    assert client.get_job_status("first") == JobStatus.STOPPED
    log = client.get_job_logs("first")
    assert "the same command continues" in log, log
    (saved,) = (run / "checkpoints").glob("*.pt")
    assert not (run / "result.json").exists()

    code, output = _submit(*arguments, environment=ray_cluster)
    assert code == 0, output
    assert "test accuracy" in output, "the job's log, with the summary, reaches whoever submitted it"
    result = read_result(tmp_path)
    assert result["resumed_from"] == int(saved.name.split("-")[0]) >= 20
    assert result["launcher"] == "ray"


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


def test_a_mistake_fails_the_job_with_its_message(ray_cluster: dict[str, str]) -> None:
    code, output = _submit("loss.bta=1", environment=ray_cluster)
    assert code == 1, output
    assert "error: loss.bta=1: no such key" in output
    assert "exit code 2" in output
    assert "Traceback" not in output


def _iteration(run: Path) -> int:
    try:
        state = json.loads((run / "progress.json").read_text())
    except (FileNotFoundError, ValueError):
        return 0
    return int(state["iteration"]) if state["phase"] == "student" else 0
