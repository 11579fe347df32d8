"""Real Ray Train: workers are killed, the driver is stopped, and the result is that of an undisturbed run."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import command, finish, read_result, run, wait_for_iteration
from tests.support.configs import TINY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = [*TINY, "iterations=120", "evaluation.every=50", "checkpoint.every=20", "name=run", "student.arch=wrn-10-1"]
RUN += ["loss.beta=0", "launch.workers=2"]


def _workers() -> list[int]:
    """Process ids of Ray's training workers."""
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if "ray::RayTrainWorker" in line]


def test_stopped_and_with_a_killed_worker_it_ends_with_the_same_bits(
    ray_cluster: dict[str, str], tmp_path: Path
) -> None:
    local, folder = tmp_path / "local", tmp_path / "ray"
    local.mkdir()
    folder.mkdir()
    code, output = run("train", *RUN, folder=local)
    assert code == 0, output
    expected = read_result(local)

    arguments = [*RUN, "launch.kind=ray"]
    progress = folder / "runs/digits/run/progress.json"
    process = command("train", *arguments, folder=folder, environment=ray_cluster)
    wait_for_iteration(process, progress, "student", 30)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 143, output
    assert "the same command continues" in output

    process = command("train", *arguments, folder=folder, environment=ray_cluster)
    wait_for_iteration(process, progress, "student", 70)
    os.kill(_workers()[-1], signal.SIGKILL)
    code, output = finish(process)
    assert code == 0, output
    result = read_result(folder)
    assert result["resumed_from"] >= 60, "the new workers start from the last checkpoint"
    assert result["launcher"] == "ray"
    assert result["world_size"] == 2
    assert result["student"]["sha256"] == expected["student"]["sha256"]


def test_too_many_workers_are_refused_at_once(ray_cluster: dict[str, str], tmp_path: Path) -> None:
    code, output = run("train", *TINY, "launch.kind=ray", "launch.workers=8", folder=tmp_path, environment=ray_cluster)
    assert code == 2, output
    assert "launch.workers=8: needs 8 CPUs" in output
    assert "at most launch.workers=2" in output
