"""Inversion on this device: its fast paths, recorded and not, against the plain ones."""

from functools import partial

import torch

from benchmarks.on_device.checking import BFLOAT16, FLOAT64, RECORDED, State, arithmetic, compared, need_cuda
from benchmarks.on_device.session import Entry, Session
from benchmarks.subject import settled
from zskt_dist.algorithms.inversion import Batch
from zskt_dist.config import load_config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network, seed_layers
from zskt_dist.tasks.inversion import InversionTraining

SHAPE, CLASSES = ImageShape(3, 12, 9), 5
ITERATIONS = 16  # recording begins with the fourth
_STATISTICS = (0.5,) * SHAPE.channels, (0.25,) * SHAPE.channels
_TINY = (
    *("teacher.arch=wrn-10-2", "student.arch=wrn-10-1", "generator.channels=[8,4]", "generator.z_dim=8"),
    *("batch_size=8", f"iterations={ITERATIONS}", "method=inversion", "inversion.rounds=3", "inversion.images=10"),
    *("inversion.steps=3", "inversion.warm_up=1", "evaluation.held_out_images=0"),
)
_FAST = ("speed.compile=false", "speed.cuda_graphs=false")


def run(session: Session) -> None:
    """Images, student and losses in float64; in bfloat16 the losses of the first iteration."""
    session.answer("check", "inversion all float64", partial(_equal, session, FLOAT64, *_FAST))
    session.answer("check", "inversion cuda_graphs float64", partial(_recorded, session))
    session.answer("check", "inversion bfloat16", partial(_near, session))


class _Doubles(InversionTraining):
    """The run's noise in float64."""

    def draw(self, number: int, batch: int) -> Batch:
        drawn = super().draw(number, batch)
        return drawn._replace(z=drawn.z.double())


def _trained(session: Session, dtype: torch.dtype, iterations: int, *overrides: str) -> State:
    with arithmetic(dtype):
        config = load_config(None, [*_TINY, *overrides])
        torch.manual_seed(0)
        teacher = settled(new_network(config, "teacher", SHAPE, CLASSES), SHAPE).requires_grad_(False)
        student = new_network(config, "student", SHAPE, CLASSES)
        kind = _Doubles if dtype == torch.float64 else InversionTraining
        task = kind(config, teacher.to(session.device), student, SHAPE, CLASSES, _STATISTICS, World(session.device))
        for iteration in range(iterations):
            seed_layers(config.seed, World(session.device), iteration)
            metrics = task.step(iteration)
        if "speed.cuda_graphs=true" in overrides:
            assert "cuda graphs" in task.speed, "it was not recorded"
        state = {f"last {name}": value.clone() for name, value in metrics.items()}
        learnt = {f"student.{name}": value.clone() for name, value in task.release().state_dict().items()}
        return state | learnt | {"pool": task.pool.newest()}


def _equal(session: Session, tolerance: float, *overrides: str) -> Entry:
    """Rounding to bytes hides what is far below one of 256 levels: a pool is equal, or something is wrong."""
    plain = _trained(session, torch.float64, ITERATIONS, "speed=plain")
    return compared(_trained(session, torch.float64, ITERATIONS, *overrides), plain, tolerance)


def _recorded(session: Session) -> Entry:
    need_cuda(session)
    return _equal(session, RECORDED, "speed.compile=false", "speed.cuda_graphs=true")


def _near(session: Session) -> Entry:
    """Of the first iteration, in which the student has learnt nothing; the images are made with 8 bits of precision."""
    half, plain = (
        _trained(session, torch.float32, 1, *overrides)
        for overrides in ((*_FAST, "speed.precision=bfloat16"), ("speed=plain",))
    )
    names = ("last kl", "last statistics_gap")
    return compared({n: half[n] for n in names}, {n: plain[n] for n in names}, BFLOAT16)
