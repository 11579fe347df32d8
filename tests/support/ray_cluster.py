"""A real Ray cluster on this machine: it takes long to start, so one serves the whole test session."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support import ray_worker
from tests.support.forks import FORK_SERVER, REPOSITORY, fork_server

RAY = str(Path(sys.executable).with_name("ray"))
QUICK = {
    "RAY_AUTH_MODE": "disabled",
    # A node that does not answer is given up after five seconds, not fifteen.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "10",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Nobody reads them.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
}
"""Ray looks after its processes more often than it would: most of the time of these tests is waiting."""
NODE = {"num_cpus": 2, "setup_worker_path": ray_worker.__file__}


class RayCluster:
    """A cluster whose nodes have two CPUs each: one at first, with a job server.

    Of several clusters on a machine it ends its own, which `ray stop` could not.

    Attributes:
        environment: Of commands that shall find it.
    """

    def __init__(self) -> None:
        ports = {name: _free_port() for name in ("dashboard_port", "dashboard_agent_listen_port")}
        with self._settings():
            from ray.cluster_utils import Cluster

            self._cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": True, **ports})
        jobs = f"http://{self._cluster.webui_url}"
        self.environment = QUICK | {"RAY_ADDRESS": self._cluster.address, "RAY_API_SERVER_ADDRESS": jobs}
        self._joined: list[Any] = []

    @property
    def address(self) -> str:
        return self.environment["RAY_ADDRESS"]

    def gain(self) -> None:
        """A node joins."""
        with self._settings():
            self._joined.append(self._cluster.add_node(**NODE))

    def lose(self) -> None:
        """The node that joined last is gone, with everything on it, without a word."""
        self._cluster.remove_node(self._joined.pop(), allow_graceful=False)

    def alone(self) -> None:
        """Only the node of the beginning is left."""
        while self._joined:
            self.lose()

    def close(self) -> None:
        self._cluster.shutdown()

    def _settings(self) -> AbstractContextManager[Any]:
        """The environment in which nodes start."""
        ours = {"PYTHONPATH": str(REPOSITORY), FORK_SERVER: fork_server().name}
        return mock.patch.dict(os.environ, QUICK | ours)


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        yield cluster
    finally:
        cluster.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
