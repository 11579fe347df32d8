"""A real Ray cluster on this machine: it takes half a minute to start, so one serves the whole test session."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))
PORT, DASHBOARD = 6397, 8397


@contextmanager
def ray_cluster() -> Iterator[dict[str, str]]:
    """A cluster of two CPUs, with its job server; yields the environment with which commands find it."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # socket paths have to be short
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": f"127.0.0.1:{PORT}"}
    ports = [f"--port={PORT}", "--dashboard-host=127.0.0.1", f"--dashboard-port={DASHBOARD}"]
    subprocess.run(
        [RAY, "start", "--head", *ports, "--num-cpus=2", f"--temp-dir={folder}", "--disable-usage-stats"],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        check=True,
        capture_output=True,
        timeout=180,
    )
    try:
        yield environment
    finally:
        subprocess.run([RAY, "stop", "--force"], check=False, capture_output=True, timeout=120)
        shutil.rmtree(folder, ignore_errors=True)
