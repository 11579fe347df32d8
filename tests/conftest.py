"""Fixtures of all tests."""

import os

# Set before torch is imported, and inherited by commands: in networks this small, threads only wait for each other.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.core import link_core
from tests.support.distributed import Ranks
from tests.support.images import save_unrendered, svg_unrendered
from tests.support.object_store import ENVIRONMENT, ObjectStore, make_bucket, start_server
from tests.support.ray_cluster import RayCluster, ray_cluster
from zskt_dist import logs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long goes first, Ray before all, so that no process is left with it in the end."""
    slow, ray = ({item for item in items if item.get_closest_marker(name)} for name in ("slow", "ray"))
    items.sort(key=lambda item: (item not in ray, item not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--numprocesses`, each process takes whole files, as fixtures are a file's.

    One takes all that start Ray, which share a cluster and mostly wait: two at a time would leave processors without
    work. One takes all exports, as what they import takes long.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            if "pytest.mark.ray" in (config.rootpath / file).read_text(encoding="utf-8"):
                return "ray"
            return "export" if file.startswith("tests/export/") else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's tracking or cluster reaches a test."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _no_log() -> Iterator[None]:
    """Verbs set up the logging of their process; this one is pytest's, which has records in `caplog`, not on stderr.

    For the session, because fixtures of a module run verbs, too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "set_up", lambda *_, **__: None)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Runs in this process may leave more."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _figures_of_runs_are_not_rendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made, and written as one pixel: rendering takes longer than the run. `rendered` tests look at them."""
    if request.node.get_closest_marker("rendered") is None:
        monkeypatch.setattr("zskt_dist.figures.plots.save", save_unrendered)
        monkeypatch.setattr("zskt_dist.figures.drawing.svg", svg_unrendered)


@pytest.fixture(scope="session", name="ray_cluster")
def _ray_cluster() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the package needs without any extra, for `tests.support.core`."""
    return link_core(tmp_path_factory.mktemp("core") / "packages")


@pytest.fixture
def closed_port() -> int:
    """Where nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Ranks]:
    """Two gloo processes for `two_ranks.run(function, …)`."""
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def object_server() -> Iterator[str]:
    """host:port of an S3 server."""
    server, endpoint = start_server()
    yield endpoint
    server.stop()


@pytest.fixture
def object_store(object_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty bucket; this process is on machine `here`."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    make_bucket(object_server, bucket)
    store = ObjectStore(object_server, bucket, tmp_path / "machines", monkeypatch)
    store.move_to("here")
    return store
