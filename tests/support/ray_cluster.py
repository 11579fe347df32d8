"""A real Ray cluster on this machine: it takes half a minute to start, so one serves the whole test session."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

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


@contextmanager
def ray_cluster() -> Iterator[dict[str, str]]:
    """A cluster of two CPUs, with its job server; yields the environment with which commands find it.

    Of several clusters on a machine it ends its own, which `ray stop` could not.
    """
    with mock.patch.dict(os.environ, QUICK):
        from ray.cluster_utils import Cluster

        ports = {name: _free_port() for name in ("dashboard_port", "dashboard_agent_listen_port")}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": True, **ports})
    try:
        jobs = f"http://{cluster.webui_url}"
        yield QUICK | {"RAY_ADDRESS": cluster.address, "RAY_API_SERVER_ADDRESS": jobs}
    finally:
        cluster.shutdown()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
