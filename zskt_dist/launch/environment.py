"""Who started this process, read from the environment before anything heavy is imported."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

RAY_PORT = 6379
_CONNECT_SECONDS = 3.0


def torchrun_rank() -> tuple[int, int] | None:
    """(rank, number of ranks) where torchrun, or a scheduler with the same variables, started this process."""
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return None


def is_follower() -> bool:
    """True if torchrun started this process with a rank other than 0; rank 0 is the driver."""
    rank = torchrun_rank()
    return rank is not None and rank[0] > 0


def ray_current_cluster() -> Path:
    """Where `ray start` notes the address of its cluster, and `ray.init()` looks for it."""
    of_the_system = os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None
    folder = os.environ.get("RAY_TMPDIR") or of_the_system or "/tmp"
    return Path(folder, "ray", "ray_current_cluster")


def ray_cluster_given() -> bool:
    """True if Ray will join a cluster: that of RAY_ADDRESS, or one that `ray start` started on this machine."""
    return "RAY_ADDRESS" in os.environ or ray_current_cluster().exists()


def named_ray_cluster() -> tuple[str, bool] | None:
    """Address of the cluster that Ray would join, with True if RAY_ADDRESS names it, False if `ray start` noted it."""
    address = os.environ.get("RAY_ADDRESS")
    by_user = address is not None
    if address is None and ray_current_cluster().exists():
        address = ray_current_cluster().read_text().strip()
    return None if address in (None, "", "auto", "local") else (str(address), by_user)


def refused(address: str, port: int) -> str | None:
    """Why a connection to HOST:PORT (a scheme may come first) fails; None where it succeeds."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        socket.create_connection((parts.hostname or "", parts.port or port), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def git_commit() -> str | None:
    """Commit of the code that runs; None where it is not in a Git checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
