"""What surrounds a recorded step, on CPU: inputs at fixed places, decays, metrics. The recording itself is CUDA's.

A graph reads and writes where it was recorded to, so a stand-in for it holds every address to be what it was then.
"""

import gc
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.configs import tiny_config
from tests.support.images import random_dataset
from tests.support.jobs import context_of
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.distributed.world import World
from zskt_dist.engine import Engine
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape
from zskt_dist.models.wide_resnet import WideResNet
from zskt_dist.networks.building import new_network
from zskt_dist.speed import PLAIN, FastPaths, cuda_graphs
from zskt_dist.streams import Purpose, stream
from zskt_dist.tasks import pretrain
from zskt_dist.tasks.supervised import ImageTraining
from zskt_dist.tasks.transfer import TransferTraining

CPU, RECORDED = torch.device("cpu"), replace(PLAIN, cuda_graphs=True)
SHAPE, ITERATIONS = ImageShape(1, 8, 8), 6


class _Replay:
    """In place of a graph: computes again what was recorded, from the same places, into the same metrics."""

    def __init__(self, recorded: "cuda_graphs._Recorded", places: Callable[[], dict[str, int]]) -> None:
        self._learn, self._where, self._then = recorded._learn, places, places()
        recorded._metrics = self._metrics = {}
        self.replays = 0

    def replay(self) -> None:
        assert self._where() == self._then
        for name, value in self._learn().items():
            self._metrics.setdefault(name, value.clone()).copy_(value)
        assert self._where() == self._then, "a step may not move what the next one reads"
        self.replays += 1


def _recording(monkeypatch: pytest.MonkeyPatch, places: Callable[[], dict[str, int]]) -> list[_Replay]:
    """What is recorded from now on."""
    made: list[_Replay] = []

    def record(recorded: "cuda_graphs._Recorded") -> _Replay:
        made.append(_Replay(recorded, places))
        return made[-1]

    monkeypatch.setattr(cuda_graphs._Recorded, "_record", record)
    return made


def _places(engines: Iterable[Engine], inputs: Iterable[Tensor]) -> dict[str, int]:
    """Addresses of all that a step reads and that outlives it."""
    tensors = {f"input {number}": tensor for number, tensor in enumerate(inputs)}
    for number, engine in enumerate(engines):
        for name, parameter in engine.raw.named_parameters():
            assert parameter.grad is not None
            tensors |= {f"{number} {name}": parameter, f"{number} {name}.grad": parameter.grad}
            state = engine.optimizer.state[parameter]
            assert state, "made before the recording"
            tensors |= {f"{number} {name}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
        tensors |= {f"{number} {name}": buffer for name, buffer in engine.raw.named_buffers()}
        for place, group in enumerate(engine.optimizer.param_groups):
            assert isinstance(group["lr"], Tensor), "a number would be frozen as it was when recorded"
            tensors[f"{number} rate {place}"] = group["lr"]
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.Stream", MagicMock())
    monkeypatch.setattr("torch.cuda.current_stream", MagicMock())
    monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())


def _metrics(step: Callable[[int], Metrics]) -> list[dict[str, list[float]]]:
    """Of every iteration, read before the next one overwrites them."""
    return [{name: value.tolist() for name, value in step(i).items()} for i in range(ITERATIONS)]


def _transfer(folder: Path, fast_paths: FastPaths, *overrides: str) -> TransferTraining:
    config = tiny_config(folder, "teacher.arch=wrn-10-1", "student.arch=wrn-10-1", *overrides)
    teacher = new_network(config, "teacher", SHAPE, 5).eval().requires_grad_(False)
    return TransferTraining(
        config, teacher, new_network(config, "student", SHAPE, 5), SHAPE, World(CPU), fast_paths=fast_paths
    )


def _training(folder: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool) -> ImageTraining:
    monkeypatch.setattr("zskt_dist.tasks.supervised.uses_cuda_graphs", lambda *_: recorded)
    config = tiny_config(folder, "supervised.batch_size=4", "teacher.arch=wrn-10-1")
    training = pretrain.start(context_of("pretrain", config, random_dataset(10, SHAPE, augmentation="crop_flip")))
    assert isinstance(training, ImageTraining)
    return training


@pytest.mark.parametrize("mode", ["post_update", "fresh"])
def test_a_recorded_transfer_sees_every_noise_and_rate(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("generator_terms.consistency=1.0", f"transfer.pseudo_batch={mode}", "transfer.generator_steps=2")
    plain, recorded = (_transfer(tmp_path, RECORDED, *settings) for _ in range(2))
    inputs = recorded._recorded._inputs
    graphs = _recording(
        monkeypatch, lambda: _places(recorded.engines.values(), [*inputs._z.values(), *inputs._image.values()])
    )
    assert _metrics(recorded.step) == _metrics(lambda i: plain.transfer.step(plain.noise(i)))
    assert [graph.replays for graph in graphs] == [ITERATIONS - 3]
    for name, engine in recorded.engines.items():
        assert engine.learning_rate == plain.engines[name].learning_rate
        told = engine.optimizer.param_groups[0]["lr"].item()
        assert told == pytest.approx(engine.learning_rate, rel=1e-6), "the tensor that is read has decayed"


def test_a_recorded_training_sees_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, recorded = (_training(tmp_path, monkeypatch, recorded=True) for _ in range(2))
    graphs = _recording(monkeypatch, lambda: _places(recorded.engines.values(), recorded.steps._batch))
    step = plain.steps._training.step
    assert _metrics(recorded.step) == _metrics(lambda i: step(*plain.batches(i)))
    assert [graph.replays for graph in graphs] == [ITERATIONS - 3]


@pytest.mark.parametrize("kind", ["transfer", "training"])
def test_layers_of_a_recorded_step_draw_from_the_seed_of_its_iteration(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph reads the device's seed when it is replayed."""
    seeds: list[int] = []
    forward = WideResNet.forward

    def note(network: WideResNet, x: Tensor) -> Tensor:
        seeds.append(torch.initial_seed())
        return forward(network, x)

    monkeypatch.setattr(WideResNet, "forward", note)
    task = _transfer(tmp_path, RECORDED) if kind == "transfer" else _training(tmp_path, monkeypatch, recorded=True)
    graphs = _recording(monkeypatch, dict)
    seeds.clear()
    expected: list[int] = []
    for iteration in range(ITERATIONS):
        before = len(seeds)
        task.step(iteration)
        seed = int(stream(0, Purpose.LAYERS, iteration, 0).integers(2**63))
        expected += [seed] * (len(seeds) - before)
    assert graphs[0].replays == ITERATIONS - 3
    assert seeds == expected
    assert len(set(seeds)) == ITERATIONS


@pytest.mark.parametrize("draw", [random.random, lambda: np.random.rand(), lambda: torch.rand(1).item()])
def test_what_draws_on_the_host_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> None:
    """A layer that is skipped at random would be skipped in every replay, or in none."""
    monkeypatch.setattr("torch.cuda.CUDAGraph", MagicMock())
    monkeypatch.setattr("torch.cuda.graph", lambda graph, stream: nullcontext())
    drawn: list[float] = []

    def learn() -> Metrics:
        drawn.append(draw())
        return {}

    recorded = cuda_graphs._Recorded(learn, required=False, warm_up=1)
    for _ in range(4):
        recorded()
    assert not recorded.works
    assert len(drawn) == 5, "the recording computes nothing, so its iteration is done once more"
    assert len(set(drawn)) == 5
    assert "(it draws random numbers on the host)" in caplog.text


@pytest.mark.parametrize(("recorded", "speed"), [(True, "cuda graphs"), (False, "plain")])
def test_a_training_says_how_it_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool, speed: str
) -> None:
    assert _training(tmp_path, monkeypatch, recorded).speed == speed


@contextmanager
def _refused(graph: object, stream: object) -> Iterator[None]:
    """A recording as CUDA ends it where an operation is not permitted: its own error hides the first one."""
    try:
        yield
    finally:
        raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A teacher that waits for the device; CUDA refuses that while it records. Counts its refusals."""
    refusals: list[int] = []
    forward = WideResNet.forward

    def wait(network: WideResNet, x: Tensor) -> Tensor:
        if not gc.isenabled():
            refusals.append(1)
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return forward(network, x)

    monkeypatch.setattr(WideResNet, "forward", wait)
    monkeypatch.setattr("torch.cuda.CUDAGraph", MagicMock())
    monkeypatch.setattr("torch.cuda.graph", _refused)
    return refusals


def test_what_cannot_be_recorded_is_computed_plainly(
    tmp_path: Path, waiting: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    plain, recorded = (_transfer(tmp_path, fast_paths) for fast_paths in (PLAIN, RECORDED))
    assert recorded.speed == "cuda graphs"
    answers = _metrics(recorded.step)
    assert answers[-1]["kl"] == pytest.approx(_metrics(plain.step)[-1]["kl"], rel=1e-3)
    assert waiting == [1], "tried once"
    assert [record.getMessage() for record in caplog.records] == [
        "cannot record an iteration as a CUDA graph (operation not permitted when stream is capturing): iterations "
        "are computed one operation at a time"
    ]
    assert recorded.speed == "plain"
    assert gc.isenabled()


@pytest.mark.usefixtures("waiting")
def test_a_recording_that_is_asked_for_must_work(tmp_path: Path) -> None:
    recorded = _transfer(tmp_path, RECORDED, "speed.cuda_graphs=true")
    with pytest.raises(ConfigError, match=r"speed.cuda_graphs=True: cannot record .*not permitted.*; use false"):
        _metrics(recorded.step)


def test_nothing_is_collected_while_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of an earlier run lies in a reference cycle; destroyed by then, it cannot spoil the recording."""
    gone: list[bool] = []

    class Earlier:
        def __del__(self) -> None:
            gone.append(gc.isenabled())

    @contextmanager
    def graph(graph: object, stream: object) -> Iterator[None]:
        assert gone == [True]
        assert not gc.isenabled()
        yield

    monkeypatch.setattr("torch.cuda.CUDAGraph", MagicMock())
    monkeypatch.setattr("torch.cuda.graph", graph)
    earlier = Earlier()
    earlier.itself = earlier
    del earlier
    recorded = cuda_graphs._Recorded(dict, required=False, warm_up=1)
    recorded()
    recorded()
    assert gc.isenabled()
