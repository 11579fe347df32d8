"""What the benchmarks train: the product's own task, of a shipped configuration, with an untrained teacher."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from zskt_dist.config import Config, load_config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network
from zskt_dist.tasks.inversion import InversionTraining
from zskt_dist.tasks.transfer import IterationNoise, TransferTraining

PAPER = "cifar10_wrn-40-2_wrn-16-1"
PAIR = ("wrn-40-2", "wrn-16-1")
SHAPE = ImageShape(3, 32, 32)
CLASSES = 10
_CONFIGS = Path(__file__).parents[1] / "configs"


def configured(*overrides: str, name: str = PAPER, pair: Sequence[str] = PAIR) -> Config:
    """A shipped configuration, of another pair of networks and with other settings; one local worker on the CPU."""
    teacher, student = pair
    networks = [f"teacher.arch={teacher}", f"student.arch={student}"]
    here = ["device=cpu", "launch.kind=local", "launch.workers=1"]
    return load_config(str(_CONFIGS / f"{name}.yaml"), [*networks, *here, *overrides])


def zero_shot_task(config: Config, world: World, shape: ImageShape = SHAPE) -> TransferTraining:
    """As a worker makes it, but for the teacher, which has learnt nothing; equal on all ranks."""
    return TransferTraining(config, teacher(config, shape), student(config, shape), shape, world)


def inversion_task(config: Config, world: World, shape: ImageShape = SHAPE) -> InversionTraining:
    """As `zero_shot_task`, for `method=inversion`."""
    statistics = (0.5,) * shape.channels, (0.25,) * shape.channels
    return InversionTraining(config, teacher(config, shape), student(config, shape), shape, CLASSES, statistics, world)


def teacher(config: Config, shape: ImageShape = SHAPE, device: torch.device | None = None) -> nn.Module:
    network = new_network(config, "teacher", shape, CLASSES).to(device or torch.device("cpu"))
    return settled(network, shape).requires_grad_(False)


def student(config: Config, shape: ImageShape = SHAPE) -> nn.Module:
    return new_network(config, "student", shape, CLASSES)


class Doubles:
    """The run's noise in float64."""

    def __init__(self, noise: IterationNoise) -> None:
        self._noise = noise

    def __call__(self, draw: int) -> Tensor:
        return self._noise(draw).double()

    def like(self, x: Tensor, draw: int) -> Tensor:
        return self._noise.like(x, draw)


def settled(network: nn.Module, shape: ImageShape = SHAPE) -> nn.Module:
    """`network` in eval mode, with running statistics of its activations on noise.

    Without them an untrained network's activations vanish or explode, and with them what is measured.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean, here of one batch
    with torch.no_grad():
        network.train()(torch.randn(64, *shape).to(next(network.parameters()).device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
