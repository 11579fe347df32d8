import copy
import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from tests.support.distributed import Ranks
from zskt_dist.distributed.world import World
from zskt_dist.engine import DDPEngine


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def _adam(network: nn.Module) -> DDPEngine:
    return DDPEngine(network, torch.optim.Adam(network.parameters(), lr=0.1), lambda i: 0.5**i, clip_norm=0.3)


def _loss(engine: DDPEngine, seed: int) -> Tensor:
    return (engine(torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))) - 1).square().mean()


class _Weights(nn.Module):
    """Two numbers, whose gradient is the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0, 20.0]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).sum()


def _sgd(clip_norm: float) -> DDPEngine:
    network = _Weights()
    return DDPEngine(network, torch.optim.SGD(network.parameters(), lr=0.5), lambda i: 1 / (1 + i), clip_norm=clip_norm)


@pytest.mark.parametrize(
    ("clip_norm", "expected"),
    [
        (0.0, [10 - 0.5 * 3, 20 - 0.5 * 4]),  # not clipped
        (100.0, [10 - 0.5 * 3, 20 - 0.5 * 4]),  # the norm is 5, below the limit
        (1.0, [10 - 0.5 * 0.6, 20 - 0.5 * 0.8]),  # a fifth of the gradient
    ],
)
def test_clipping_and_schedule(clip_norm: float, expected: list[float]) -> None:
    """Gradient (3, 4), norm 5; the norm before clipping is returned. Then half the rate, gradient (0, -2)."""
    engine = _sgd(clip_norm)
    assert engine.learning_rate == 0.5
    assert engine.step(engine(torch.tensor([3.0, 4.0]))).item() == pytest.approx(5)
    assert engine.raw.weight.tolist() == pytest.approx(expected, rel=1e-5)
    engine.decay()
    assert engine.learning_rate == 0.25
    assert engine.step(engine(torch.tensor([0.0, -2.0]))).item() == pytest.approx(2)
    second = 2.0 if clip_norm != 1 else 1.0
    assert engine.raw.weight.tolist() == pytest.approx([expected[0], expected[1] + 0.25 * second], rel=1e-5)


def test_a_rate_is_told_without_reading_it() -> None:
    """Where it lies in a tensor on the device, that would mean to wait."""
    network = _Weights()
    rate = torch.tensor(0.5)
    engine = DDPEngine(network, torch.optim.Adam(network.parameters(), lr=rate, fused=True), lambda i: 1 / (1 + i))
    engine.decay()
    assert rate.item() == 0.25
    rate.fill_(float("nan"))
    assert engine.learning_rate == 0.25


def test_gradients_do_not_add_up() -> None:
    engine = _sgd(0.0)
    for _ in range(3):
        assert engine.step(engine(torch.tensor([3.0, 4.0]))).item() == pytest.approx(5)
    assert engine.raw.weight.tolist() == pytest.approx([10 - 4.5, 20 - 6])


def _of_rank(world: World, clip_norm: float) -> tuple[float, list[float], bool]:
    engine = _sgd(clip_norm)
    norm = engine.step(engine(torch.tensor([[6.0, 0.0], [0.0, 8.0]])[world.rank]))
    wrapped = isinstance(engine._forward, DistributedDataParallel)
    return norm.item(), engine.raw.weight.tolist(), wrapped and engine.raw is engine._forward.module


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_two_workers_clip_the_average_gradient(two_ranks: Ranks, clip_norm: float) -> None:
    """Gradients (6, 0) and (0, 8): their mean is (3, 4) of norm 5, the mean of their norms would be 7."""
    scale = 0.5 if clip_norm == 0 else 0.1
    for norm, weights, is_wrapped in two_ranks.run(_of_rank, clip_norm):
        assert norm == pytest.approx(5)
        assert weights == pytest.approx([10 - scale * 3, 20 - scale * 4], rel=1e-5)
        assert is_wrapped


def _accumulated(world: World, parts: int) -> tuple[int, float, list[float]]:
    """How often gradients were exchanged in one update of `parts` micro-batches, their norm and the weights."""
    engine = _sgd(0.0)
    exchanges = 0

    def exchange(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        nonlocal exchanges
        exchanges += 1
        return allreduce_hook(None, bucket)

    assert isinstance(engine._forward, DistributedDataParallel)
    engine._forward.register_comm_hook(None, exchange)
    whole = torch.tensor([[6.0, 0.0], [0.0, 8.0]])[world.rank]
    for x, share in engine.accumulate([whole] * parts, [1 / parts] * parts):
        engine.backward(share * engine(x))
    return exchanges, engine.update().item(), engine.raw.weight.tolist()


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_two_workers_exchange_gradients_once_for_all_micro_batches(two_ranks: Ranks, parts: int) -> None:
    for exchanges, norm, weights in two_ranks.run(_accumulated, parts):
        assert exchanges == 1
        assert norm == pytest.approx(5)
        assert weights == pytest.approx([10 - 0.5 * 3, 20 - 0.5 * 4], rel=1e-5)


def _differently_many(world: World) -> list[float]:
    """One micro-batch on rank 0, three on rank 1."""
    engine = _sgd(0.0)
    parts = 1 + 2 * world.rank
    for (x,) in engine.accumulate([torch.tensor([3.0, 4.0]) / parts] * parts):
        engine.backward(engine(x))
    engine.update()
    return engine.raw.weight.tolist()


def test_workers_need_not_have_the_same_number_of_micro_batches(two_ranks: Ranks) -> None:
    for weights in two_ranks.run(_differently_many):
        assert weights == pytest.approx([10 - 1.5, 20 - 2.0], rel=1e-5)


def test_micro_batches_of_one_worker_add_up() -> None:
    engine = _sgd(0.0)
    for number, x in engine.accumulate(range(2), [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])]):
        assert number in (0, 1)
        engine.backward(engine(x))
    assert engine.update().item() == pytest.approx(5)
    with pytest.raises(ValueError, match="shorter"):
        list(engine.accumulate([1, 2], [1]))


def test_frozen_takes_no_gradient_and_passes_it_on() -> None:
    engine = _adam(_network())
    x = torch.randn(8, 3, requires_grad=True)
    with engine.frozen() as network:
        assert not any(parameter.requires_grad for parameter in engine.raw.parameters())
        network(x).square().sum().backward()
    assert all(parameter.grad is None for parameter in engine.raw.parameters())
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert all(parameter.requires_grad for parameter in engine.raw.parameters())


@pytest.mark.parametrize("statistics", [True, False])
def test_frozen_is_undone_after_an_exception(statistics: bool) -> None:
    engine = _adam(_network())

    def fail() -> None:
        with engine.frozen(statistics=statistics):
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert all(parameter.requires_grad for parameter in engine.raw.parameters())
    assert engine.raw[1].track_running_stats
    assert engine.step(_loss(engine, 0)) > 0


def test_frozen_leaves_what_was_not_trainable() -> None:
    """A network of which a part is fixed by its owner is as it was afterwards."""
    network = _network()
    network[0].requires_grad_(False)
    before = copy.deepcopy(network[0].state_dict())
    engine = _adam(network)
    with engine.frozen():
        pass
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, False] + [True] * 4
    engine.step(_loss(engine, 0))
    assert all(torch.equal(value, before[name]) for name, value in network[0].state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", [True, False])
def test_frozen_statistics(statistics: bool, training: bool) -> None:
    """The outputs are the same either way: those of the batch in training, of the running statistics in eval mode."""
    engine = _adam(_network())
    engine.step(_loss(engine, 3))  # running statistics that are not the initial ones
    plain = copy.deepcopy(engine.raw)
    before = copy.deepcopy(engine.raw.state_dict())
    engine.raw.train(training)
    plain.train(training)
    x = torch.randn(8, 3)
    with engine.frozen(statistics=statistics) as network, torch.no_grad():
        assert torch.equal(network(x), plain(x))
    norm = engine.raw[1]
    moved = statistics and training
    assert int(norm.num_batches_tracked) == 1 + moved
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(norm, name), before[f"1.{name}"]) is not moved
        if moved:
            assert torch.equal(getattr(norm, name), getattr(plain[1], name))


@pytest.mark.parametrize("through_a_file", [True, False])
def test_state_continues_identically(through_a_file: bool, tmp_path: pytest.TempPathFactory) -> None:
    """Parameters, statistics, Adam's moments and the schedule, to the last bit."""
    engine = _adam(_network())
    for seed in range(3):
        engine.step(_loss(engine, seed))
        engine.decay()
    state = copy.deepcopy(engine.state_dict())
    if through_a_file:
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)

    torch.manual_seed(99)
    other = _adam(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)))
    assert not torch.equal(other.raw[0].weight, engine.raw[0].weight)
    other.load_state_dict(state)
    assert other.learning_rate == engine.learning_rate == pytest.approx(0.1 * 0.5**3)
    for seed in range(3, 6):
        norms = []
        for each in (engine, other):
            norms.append(each.step(_loss(each, seed)))
            each.decay()
        assert torch.equal(*norms)
    for name, value in engine.raw.state_dict().items():
        assert torch.equal(other.raw.state_dict()[name], value), name
    assert math.isclose(other.learning_rate, 0.1 * 0.5**6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_state_of_another_memory_layout_is_taken_over(layout: torch.memory_format) -> None:
    """A run begun on CPU goes on on a GPU with weights laid out otherwise; fused Adam goes through both by address."""

    def engine(layout: torch.memory_format) -> DDPEngine:
        torch.manual_seed(0)
        network = nn.Conv2d(4, 4, 3).to(memory_format=layout)
        return DDPEngine(network, torch.optim.Adam(network.parameters(), lr=0.1, fused=True), lambda i: 1.0)

    def step(engine: DDPEngine) -> Tensor:
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        engine.step(engine(x).square().sum())
        return engine.raw.weight.detach()

    begun, resumed = engine(torch.contiguous_format), engine(layout)
    step(begun)
    resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
    torch.testing.assert_close(step(resumed), step(begun))
