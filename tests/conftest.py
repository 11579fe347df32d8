"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest
import torch

from tests.support.distributed import Ranks


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's tracking or cluster reaches a test."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks of tests are so small that threads only wait for each other."""
    torch.set_num_threads(1)


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
