"""Which fast path is taken: what is asked for, and what `auto` stands for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.configs import tiny_config
from zskt_dist.errors import ConfigError
from zskt_dist.models import TappedNetwork
from zskt_dist.speed import PLAIN, FastPaths, choose_fast_paths, fastest_convolutions
from zskt_dist.speed.fast_paths import compile_in_place, to_channels_last

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def _never() -> float:
    raise AssertionError("nobody needs to know")


@pytest.fixture(autouse=True)
def a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.speed.fast_paths.shutil.which", lambda name: f"/usr/bin/{name}")


def test_plain_is_without_any(tmp_path: Path) -> None:
    for device in (CPU, CUDA):
        assert choose_fast_paths(tiny_config(tmp_path, "speed=plain"), device, _never, 1) == PLAIN
    assert str(PLAIN) == "plain"


@pytest.mark.parametrize(("gflop", "compiles"), [(100.0, False), (1e7, True)])
def test_auto_compiles_long_runs_on_cpu(tmp_path: Path, gflop: float, compiles: bool) -> None:
    fast_paths = choose_fast_paths(tiny_config(tmp_path), CPU, lambda: gflop, 1)
    assert fast_paths == FastPaths(True, True, True, compiles, False, None)


def test_every_batch_size_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than torch's own limit of 8 for networks of one class."""
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *a, **k: compile_(*a, **k, backend=backend))
    torch._dynamo.reset()
    network = torch.nn.Linear(3, 2)
    compile_in_place(network)
    for batch in range(2, 14):
        network(torch.zeros(batch, 3))
    assert len(compiled) == 12


def test_auto_does_not_compile_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.speed.fast_paths.shutil.which", lambda name: None)
    assert not choose_fast_paths(tiny_config(tmp_path), CPU, lambda: 1e9, 1).compile
    with pytest.raises(ConfigError, match=r"speed.compile=True: on CPU needs a C\+\+ compiler"):
        choose_fast_paths(tiny_config(tmp_path, "speed.compile=true"), CPU, _never, 1)


@pytest.mark.parametrize(("workers", "recorded"), [(1, True), (2, False)])
def test_auto_records_on_cuda_with_one_worker(tmp_path: Path, workers: int, recorded: bool) -> None:
    assert choose_fast_paths(tiny_config(tmp_path), CUDA, _never, workers) == FastPaths(
        True, True, True, False, recorded, None
    )


@pytest.mark.parametrize(
    ("device", "workers", "here"), [(CPU, 1, "this worker has cpu"), (CUDA, 2, "there are 2")], ids=["cpu", "two"]
)
def test_recording_needs_cuda_and_one_worker(tmp_path: Path, device: torch.device, workers: int, here: str) -> None:
    problem = f"speed.cuda_graphs=True: needs CUDA and a single worker, {here}; use auto"
    with pytest.raises(ConfigError, match=problem):
        choose_fast_paths(tiny_config(tmp_path, "speed.cuda_graphs=true"), device, _never, workers)


def test_a_choice_is_said(tmp_path: Path) -> None:
    fast_paths = choose_fast_paths(
        tiny_config(tmp_path, "speed.low_resolution=false", "speed.precision=bfloat16"), CPU, lambda: 0.0, 1
    )
    assert str(fast_paths) == "channels last, folded teacher, bfloat16"


def test_networks_without_parameters_are_set_too() -> None:
    network = TappedNetwork(torch.nn.Flatten())
    FastPaths(True, False, False, False, False, torch.bfloat16).apply(network)
    assert network.autocast is torch.bfloat16


@pytest.mark.parametrize(
    ("device", "deterministic", "tried"), [(CUDA, False, True), (CUDA, True, False), (CPU, False, False)]
)
def test_convolutions_are_tried_on_cuda_unless_determinism_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, deterministic: bool, tried: bool
) -> None:
    monkeypatch.setattr("torch.backends.cudnn.benchmark", False)
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: deterministic)
    fastest_convolutions(device)
    assert torch.backends.cudnn.benchmark is tried


def test_weights_of_five_dimensions_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv3d(1, 2, 3))
    network.register_buffer("map", torch.zeros(1, 3, 4, 5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    to_channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network.map.is_contiguous(memory_format=torch.channels_last)
    assert network[1].weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
