"""Agents of a cluster whose driver was killed: stood in for by processes of those names."""

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from zskt_dist.launch.ray_agents import end_orphaned_agents

pytestmark = pytest.mark.skipif(not psutil.LINUX, reason="names processes by their files, as Linux does")


def _named(program: str, path: Path) -> str:
    found = shutil.which(program)
    assert found
    return shutil.copy(found, path)


@pytest.mark.parametrize("name", ["ray::DashboardAgent", "ray::RuntimeEnvAgent"])
def test_an_agent_without_its_raylet_is_ended(tmp_path: Path, name: str) -> None:
    with subprocess.Popen([_named("sleep", tmp_path / name), "60"]) as process:
        assert process.pid in end_orphaned_agents()
        assert process.wait(5) == -9


def test_other_processes_of_ray_are_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([_named("sleep", tmp_path / "ray::IDLE"), "60"]) as process:
        assert process.pid not in end_orphaned_agents()
        assert process.poll() is None
        process.kill()


def test_an_agent_of_a_living_raylet_is_left_alone(tmp_path: Path) -> None:
    agent = _named("sleep", tmp_path / "ray::DashboardAgent")
    raylet = [_named("sh", tmp_path / "raylet"), "-c", f"{agent} 60 & echo $!; wait"]
    with subprocess.Popen(raylet, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = psutil.Process(int(process.stdout.readline()))
        assert child.pid not in end_orphaned_agents()
        assert child.is_running()
        child.kill()
