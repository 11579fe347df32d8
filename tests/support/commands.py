"""Starting commands as users do, and watching how far they are."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.forks import Process, fork_server

REPOSITORY = Path(__file__).parents[2]


def command(
    verb: str, *arguments: str, folder: Path, environment: dict[str, str] | None = None, package: str = "zskt_dist"
) -> Process:
    """`python -m PACKAGE.VERB …` in `folder`, in a process group of its own, with stderr kept."""
    return python("-m", f"{package}.{verb}", *arguments, folder=folder, environment=environment)


def python(*arguments: str, folder: Path, environment: dict[str, str] | None = None) -> Process:
    """`python …`, a module or a script of that folder, as `command`."""
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | (environment or {})
    if environment["PYTHONPATH"] == str(REPOSITORY):
        program, *words = arguments[1:] if arguments[0] == "-m" else (folder / arguments[0], *arguments[1:])
        return fork_server().start(str(program), *words, folder=folder, environment=os.environ | environment)
    return subprocess.Popen(  # other packages than those that have been imported
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: Process, timeout: float = 240) -> tuple[int, str]:
    """Exit code and output; the whole process group is gone afterwards."""
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        kill_group(process)
    code = process.returncode
    assert code is not None
    return code, output


def run(verb: str, *arguments: str, folder: Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    return finish(command(verb, *arguments, folder=folder, environment=environment))


def module(name: str, *arguments: str, folder: Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """`python -m NAME …`, as `run`."""
    return finish(python("-m", name, *arguments, folder=folder, environment=environment))


def kill_group(process: Process) -> None:
    """SIGKILL to everything that was started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_for_iteration(process: Process, progress: Path, phase: str, iteration: int) -> None:
    """Returns once the run has done `iteration` of `phase`."""

    def reached() -> bool:
        try:
            state: dict[str, Any] = json.loads(progress.read_text())
        except (FileNotFoundError, ValueError):
            return False
        return state["phase"] == phase and state["iteration"] >= iteration

    wait_until(reached, process)


def wait_until(reached: Callable[[], bool], process: Process, timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        if process.poll() is not None:
            raise AssertionError(f"the command ended first:\n{finish(process)[1]}")
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def read_result(folder: Path, pattern: str = "runs/digits/*/result.json") -> dict[str, Any]:
    (path,) = folder.glob(pattern)
    return dict(json.loads(path.read_text()))
