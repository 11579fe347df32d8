"""ZeRO against DDP on two workers, in each stage: parameters, norms, metrics and checkpoints."""

import copy
import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.support.distributed import Ranks
from tests.support.nets import TinyClassifier, TinyGenerator
from zskt_dist.algorithms.belief_matching import BeliefMatching
from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.distributed.world import World
from zskt_dist.engine import DDPEngine, Engine
from zskt_dist.engine.deepspeed import DeepSpeedEngine, Zero, shard
from zskt_dist.models import TappedNetwork

if importlib.util.find_spec("deepspeed") is None:
    pytest.skip("deepspeed is not installed", allow_module_level=True)

ALONE = World(torch.device("cpu"))
ITERATIONS, BATCH = 5, 8
STAGES = [0, 1, 2, 3]
DDP = None
"""In place of a stage."""

Weights = dict[str, Tensor]
Trained = list[tuple[Weights, list[dict[str, list[float]]]]]
"""Weights and metrics on each rank."""
Expected = Callable[..., Trained]


def _zero(stage: int, **settings: Any) -> Zero:
    return Zero(stage, whole_below=0, **settings)  # or stage 3 would leave networks this small alone


def _engine(stage: int | None, network: nn.Module, optimizer: torch.optim.Optimizer, **settings: Any) -> Engine:
    zero = {
        name: settings.pop(name) for name in ("bfloat16", "offload_optimizer", "offload_parameters") if name in settings
    }
    schedule = settings.pop("schedule", lambda i: (1 + math.cos(math.pi * i / 20)) / 2)
    if stage is None:
        return DDPEngine(network, optimizer, schedule, **settings)
    return DeepSpeedEngine(network, optimizer, schedule, zero=_zero(stage, **zero), **settings)


class _Noise:
    """This worker's slice of z."""

    def __init__(self, world: World, iteration: int, batch: int) -> None:
        self._world, self._iteration, self._batch = world, iteration, batch

    def __call__(self, draw: int) -> Tensor:
        rng = torch.Generator().manual_seed(100 * self._iteration + draw)
        return torch.randn(self._batch, 5, generator=rng)[self._world.part(self._batch)]

    def like(self, x: Tensor, draw: int) -> Tensor:
        raise AssertionError("only terms of the generator need it, and there are none here")


class _Run:
    """Algorithm 1 on networks of a few hundred parameters."""

    def __init__(
        self,
        world: World,
        stage: int | None,
        *,
        norm: bool = False,
        batch: int = BATCH,
        sharded: bool = False,
        zero: dict[str, bool] | None = None,
        **transfer: Any,
    ) -> None:
        torch.manual_seed(0)
        teacher = TinyClassifier(6, norm=norm).eval().requires_grad_(False)
        student = TappedNetwork(TinyClassifier(4, norm=norm), ["act1", "act2"])
        generator = TinyGenerator(norm=norm)
        if norm:
            # Batch norm takes these biases away again: Adam would make whole steps of the rounding in their gradients.
            generator.linear.bias.requires_grad_(False)
            student.network.conv1.bias.requires_grad_(False)
        self.world, self.batch = world, batch
        self.engines = [
            _engine(
                stage,
                network,
                torch.optim.Adam(network.parameters(), lr=rate, fused=True),
                clip_norm=0.05,
                weight=world.weight(batch),
                **(zero or {}),
            )
            for network, rate in ((generator, 1e-2), (student, 2e-2))
        ]
        tapped = TappedNetwork(shard(teacher, whole_below=0) if sharded else teacher, ["act1", "act2"])
        settings = {"generator_steps": 2, "student_steps": 3, "beta": 10.0} | transfer
        self.transfer = BeliefMatching(*self.engines, tapped, gap=belief_gap(reduction="batchmean"), **settings)

    def go(self, first: int = 0, last: int = ITERATIONS) -> "_Run":
        self.told = [
            self.world.mean(self.transfer.step(_Noise(self.world, i, self.batch)), self.world.weight(self.batch))
            for i in range(first, last)
        ]
        return self

    def weights(self) -> Weights:
        """Everything learnt and counted."""
        answer = {}
        for engine in self.engines:
            with engine.whole() as network:
                answer |= {f"{type(network).__name__}.{k}": v.detach().clone() for k, v in network.state_dict().items()}
        return answer

    def state(self) -> list[dict[str, Any]]:
        return [engine.state_dict() for engine in self.engines]

    def load(self, state: list[dict[str, Any]]) -> "_Run":
        for engine, saved in zip(self.engines, state, strict=True):
            engine.load_state_dict(saved)
        return self


def _trained(world: World, stage: int | None, settings: dict[str, Any]) -> tuple[Weights, list[dict[str, list[float]]]]:
    run = _Run(world, stage, **settings).go()
    return run.weights(), run.told


def _assert_close(got: Weights, expected: Weights, atol: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def with_ddp(two_ranks: Ranks) -> Expected:
    """What DDP makes of settings, on both ranks; each is trained once."""
    made: dict[str, Trained] = {}

    def train(**settings: Any) -> Trained:
        key = repr(sorted(settings.items()))
        if key not in made:
            made[key] = two_ranks.run(_trained, DDP, settings)
        return made[key]

    return train


def _assert_same_training(
    two_ranks: Ranks, with_ddp: Expected, stage: int, atol: float = 1e-5, **settings: Any
) -> None:
    expected = with_ddp(**{name: value for name, value in settings.items() if name not in ("zero", "sharded")})
    for (weights, told), (expected_weights, expected_told) in zip(
        two_ranks.run(_trained, stage, settings), expected, strict=True
    ):
        _assert_close(weights, expected_weights, atol)
        for row, expected_row in zip(told, expected_told, strict=True):
            assert row == {name: pytest.approx(value, rel=1e-3, abs=10 * atol) for name, value in expected_row.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_training_is_that_of_ddp(two_ranks: Ranks, with_ddp: Expected, stage: int) -> None:
    """Parameters of both networks after 5 iterations, and all metrics on the way, gradient norms among them."""
    _assert_same_training(two_ranks, with_ddp, stage)


@pytest.mark.parametrize("stage", STAGES)
def test_with_batch_norm(two_ranks: Ranks, with_ddp: Expected, stage: int) -> None:
    """It divides by small deviations and so magnifies the rounding of float32."""
    _assert_same_training(two_ranks, with_ddp, stage, atol=1e-4, norm=True)


UNEVEN, MICRO, FRESH, SHARDED = {"batch": 7}, {"micro_batch": 2}, {"pseudo_batch": "fresh"}, {"sharded": True}


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        *((stage, UNEVEN) for stage in (0, 1, 3)),
        *((stage, MICRO) for stage in STAGES),
        *((stage, settings) for stage in (2, 3) for settings in (FRESH, SHARDED)),
    ],
)
def test_variants(two_ranks: Ranks, with_ddp: Expected, stage: int, settings: dict[str, Any]) -> None:
    """Slices of 4 and 3 images; two passes for each gradient; other images for every step; a teacher in ZeRO-3."""
    _assert_same_training(two_ranks, with_ddp, stage, **settings)


@pytest.mark.parametrize(
    ("stage", "zero"),
    [
        *((stage, {"offload_optimizer": True}) for stage in (2, 3)),
        (3, {"offload_optimizer": True, "offload_parameters": True}),
    ],
)
def test_offloading(two_ranks: Ranks, with_ddp: Expected, stage: int, zero: dict[str, bool]) -> None:
    _assert_same_training(two_ranks, with_ddp, stage, zero=zero)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_bfloat16_is_near(two_ranks: Ranks, with_ddp: Expected, stage: int) -> None:
    """Autocast keeps 8 bits of each product; weights stay float32."""
    (expected, _), _ = with_ddp()
    for weights, _ in two_ranks.run(_trained, stage, {"zero": {"bfloat16": True}}):
        assert all(value.dtype == torch.float32 for value in weights.values())
        _assert_close(weights, expected, atol=0.05)
        assert any((weights[name] - value).abs().max() > 1e-5 for name, value in expected.items()), "no autocast"


class _Weights(nn.Module):
    """Two numbers, whose gradient is the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0, 20.0]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).sum()


def _two_steps(world: World, stage: int, clip_norm: float) -> list[Any]:
    """Gradients whose means are (3, 4) and (0, -2), with half the rate for the second."""
    network = _Weights()
    sgd = torch.optim.SGD(network.parameters(), lr=0.5)
    engine = _engine(stage, network, sgd, clip_norm=clip_norm, schedule=lambda i: 1 / (1 + i))
    answer: list[Any] = []
    for gradients in ([[6.0, 0.0], [0.0, 8.0]], [[0.0, -4.0], [0.0, 0.0]]):
        norm = engine.step(engine(torch.tensor(gradients)[world.rank]))
        engine.decay()
        with engine.whole() as whole:
            answer += [norm.item(), *whole.weight.tolist()]
    return answer


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_clipping_and_schedule_by_hand(two_ranks: Ranks, stage: int, clip_norm: float) -> None:
    """The mean gradient (3, 4) has norm 5; the mean of the workers' norms would be 7."""
    first, second = (0.1, 1.0) if clip_norm else (0.5, 2.0)
    expected = [5.0, 10 - first * 3, 20 - first * 4, 2.0, 10 - first * 3, 20 - first * 4 + 0.25 * second]
    for answer in two_ranks.run(_two_steps, stage, clip_norm):
        assert answer == pytest.approx(expected, rel=1e-5)


def _norm_of_an_infinite_gradient(world: World, stage: int) -> float:
    network = _Weights()
    engine = _engine(stage, network, torch.optim.SGD(network.parameters(), lr=0.5), clip_norm=1.0)
    return engine.step(engine(torch.tensor([float("inf"), 1.0]))).item()


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_that_is_not_finite_is_told(two_ranks: Ranks, stage: int) -> None:
    """DeepSpeed skips such a step without a word; the run has to end."""
    assert not any(math.isfinite(norm) for norm in two_ranks.run(_norm_of_an_infinite_gradient, stage))


def _handed_over(world: World, before: int | None, after: int | None, path: str) -> Weights:
    """Three iterations with one engine, a checkpoint, two with the other."""
    state = _Run(world, before, norm=True).go(0, 3).state()
    if world.is_main:
        torch.save(state, path)
    world.barrier()
    loaded = torch.load(path, weights_only=True)
    other = _Run(world, after, norm=True)
    for engine in other.engines:
        for parameter in engine.raw.parameters():
            parameter.data.mul_(7)  # nothing of its own may remain
    return other.load(loaded).go(3, ITERATIONS).weights()


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, DDP), (2, 3), (3, DDP), (3, 1), (DDP, 2), (DDP, 3)])
def test_checkpoints_are_read_by_every_engine(
    two_ranks: Ranks, with_ddp: Expected, before: int | None, after: int | None, tmp_path: Path
) -> None:
    """Parameters, Adam's moments and the schedule: training goes on as if the engine had been the same."""
    expected = with_ddp(norm=True)
    handed_over = two_ranks.run(_handed_over, before, after, str(tmp_path / "state.pt"))
    parameters = [name for name in expected[0][0] if "running" not in name]  # workers keep statistics of their own
    for weights, (expected_weights, _) in zip(handed_over, expected, strict=True):
        _assert_close(*({name: of[name] for name in parameters} for of in (weights, expected_weights)), atol=1e-4)


def _states(world: World, stage: int | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    run = _Run(world, stage)
    return copy.deepcopy(run.state()), run.go(0, 2).state()


@pytest.mark.parametrize("stage", STAGES)
def test_state_is_that_of_ddp(two_ranks: Ranks, stage: int) -> None:
    """The same keys, shapes and values, at the start and after some iterations, on every worker."""
    expected = two_ranks.run(_states, DDP)[0]
    for moments in two_ranks.run(_states, stage):
        for engines, expected_engines in zip(moments, expected, strict=True):
            for state, expected_state in zip(engines, expected_engines, strict=True):
                torch.testing.assert_close(state["network"], dict(expected_state["network"]), rtol=0, atol=1e-5)
                got, wanted = state["optimizer"], expected_state["optimizer"]
                assert got["state"].keys() == wanted["state"].keys()
                for number, moment in wanted["state"].items():
                    torch.testing.assert_close(got["state"][number], moment, rtol=0, atol=1e-5)
                assert state["scheduler"] == expected_state["scheduler"]


def _memory(world: World, stage: int) -> list[int]:
    """Elements of the networks that this worker holds between steps."""
    run = _Run(world, stage).go(0, 1)
    return [sum(p.numel() for p in engine.raw.parameters()) for engine in run.engines]


def test_parameters_are_shared_out_in_stage_3_only(two_ranks: Ranks) -> None:
    assert all(min(held) > 0 for stage in (0, 1, 2) for held in two_ranks.run(_memory, stage))
    assert two_ranks.run(_memory, 3) == [[0, 0], [0, 0]]


def _state_of_two(world: World, stage: int) -> list[dict[str, Any]]:
    return _Run(world, stage).go(0, 3).state()


@pytest.fixture
def no_group() -> Iterator[None]:
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("stage", STAGES)
def test_one_worker_goes_on_from_two(two_ranks: Ranks, with_ddp: Expected, stage: int, no_group: None) -> None:
    """Without a process group of its launcher; each test makes a new one, and DeepSpeed follows."""
    expected, _ = with_ddp()[0]
    alone = _Run(ALONE, stage).load(two_ranks.run(_state_of_two, stage)[0]).go(3, ITERATIONS)
    _assert_close(alone.weights(), expected)
