"""How many threads a local worker takes."""

from pathlib import Path

import pytest

from tests.support.configs import tiny_config
from zskt_dist.launch import devices


@pytest.mark.parametrize(
    ("settings", "environment", "threads"),
    [
        (["launch.workers=1", "launch.cpus_per_worker=null"], {}, 8),
        (["launch.workers=3", "launch.cpus_per_worker=null"], {}, 2),
        (["launch.workers=9", "batch_size=9", "launch.cpus_per_worker=null"], {}, 1),
        (["launch.workers=1", "launch.cpus_per_worker=5"], {"OMP_NUM_THREADS": "3"}, 5),
        (["launch.workers=2", "launch.cpus_per_worker=null"], {"OMP_NUM_THREADS": "3"}, 3),
        (["launch.workers=1", "launch.cpus_per_worker=null"], {"OMP_NUM_THREADS": "4,2"}, 8),
        (["launch.workers=2", "launch.cpus_per_worker=null"], {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 4),
    ],
)
def test_threads(
    settings: list[str], environment: dict[str, str], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight cores; torchrun sets OMP_NUM_THREADS for everybody."""
    monkeypatch.setattr(devices, "usable_cores", lambda: 8)
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert devices.threads_per_worker(tiny_config(tmp_path, *settings)) == threads
