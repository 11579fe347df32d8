"""Whether a Ray cluster has room for the workers, worked out from its nodes."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
import ray

from tests.support.configs import TINY
from zskt_dist.commands import train
from zskt_dist.config import load_config
from zskt_dist.errors import ConfigError
from zskt_dist.launch import ray as launch
from zskt_dist.launch.ray import check_resources, workers_that_fit
from zskt_dist.runs.directory import RunDirectory

BIG = {"CPU": 8.0, "GPU": 1.0}


def _cluster(monkeypatch: pytest.MonkeyPatch, *nodes: Mapping[str, float]) -> None:
    """These nodes are there, and a large one is gone."""
    listed = [{"Alive": True, "Resources": dict(node)} for node in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: [*listed, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    monkeypatch.setattr(ray, "cluster_resources", lambda: {name: amount for name, amount in total.items() if amount})


def test_too_many_workers_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _cluster(monkeypatch, {"CPU": 2.0})
    monkeypatch.setenv("RAY_ADDRESS", "cluster.example:6379")
    monkeypatch.setattr(launch, "connected", lambda: nullcontext(False))
    code = train.main([*TINY, f"runs_dir={tmp_path}/runs", "launch.kind=ray", "launch.workers=8"])
    error = capsys.readouterr().err
    assert code == 2, error
    assert "launch.workers=8: needs 8 CPUs (1 each), the Ray cluster has 2 CPUs on 1 node(s)" in error
    assert "at most launch.workers=2 fit" in error


@pytest.mark.parametrize(
    ("nodes", "each", "workers"),
    [
        ([{"CPU": 3.0}, {"CPU": 3.0}], 2, 2),  # six CPUs, and yet no third worker: it would lie on two nodes
        ([{"CPU": 3.0}, {"CPU": 5.0}], 2, 3),
        ([{"CPU": 1.0}, {"GPU": 1.0}], 2, 0),
        ([], 1, 0),
    ],
)
def test_a_worker_lies_on_one_node(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], each: int, workers: int
) -> None:
    _cluster(monkeypatch, *nodes)
    assert workers_that_fit({"CPU": each}) == workers


def test_where_no_worker_fits_smaller_ones_are_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    _cluster(monkeypatch, {"CPU": 3.0}, {"CPU": 3.0})
    with pytest.raises(ConfigError, match=r"4 CPUs \(4 each\).*6 CPUs on 2 node.*lower launch.cpus_per_worker"):
        check_resources(load_config(None, ["launch.workers=1", "launch.cpus_per_worker=4"]))


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        (["launch.workers=2", "device=auto"], {"CPU": 1, "GPU": 1}),
        (["launch.workers=3", "device=auto"], {"CPU": 1}),  # there are two GPUs
        (["launch.workers=[2,3]", "device=auto"], {"CPU": 1, "GPU": 1}),  # the fewest decide
        (["launch.workers=2", "device=cpu"], {"CPU": 1}),
        (["launch.workers=2", "device=cuda"], {"CPU": 1, "GPU": 1}),
    ],
)
def test_a_worker_takes_a_gpu_where_all_can(
    monkeypatch: pytest.MonkeyPatch, settings: list[str], gpus: dict[str, int]
) -> None:
    _cluster(monkeypatch, BIG, BIG)
    assert check_resources(load_config(None, [*settings, "launch.kind=ray", "launch.cpus_per_worker=1"])) == gpus


def test_gpus_that_are_asked_for_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    _cluster(monkeypatch, BIG, BIG)
    with pytest.raises(ConfigError, match=r"launch.workers=3: needs 3 CPUs \(1 each\) and 3 GPUs \(1 each\)"):
        check_resources(load_config(None, ["launch.workers=3", "device=cuda", "launch.cpus_per_worker=1"]))


def test_a_folder_that_not_all_nodes_see_is_one_line(tmp_path: Path) -> None:
    class Trainer:
        def fit(self) -> None:
            raise RuntimeError("Unable to set up cluster storage with the following settings:\nsome\nCheck that all …")

    directory = RunDirectory(tmp_path / "runs" / "digits" / "a")
    directory.path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=rf"runs_dir='{tmp_path}/runs': is not seen by all nodes.*s3://bucket/runs"):
        launch._fit(Trainer(), directory, leave_at_once=False)  # type: ignore[arg-type]
