"""Inversions at their smallest, of an untrained teacher of digits."""

from pathlib import Path

import torch
from torch import Tensor

from tests.support.configs import tiny_config
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.building import new_network
from zskt_dist.tasks.inversion import InversionTraining

ALONE = World(torch.device("cpu"))
SHAPE = ImageShape(1, 8, 8)
SMALL = ("method=inversion", "inversion.rounds=3", "inversion.parts=3", "inversion.images=7", "inversion.steps=2")


def inversion_config(folder: Path, *overrides: str) -> Config:
    return tiny_config(folder, *SMALL, "inversion.warm_up=2", "name=run", *overrides)


def inversion_training(
    config: Config, world: World = ALONE, folder: Path | None = None, seed: Tensor | None = None
) -> InversionTraining:
    torch.manual_seed(3)
    teacher = build_network("wrn-10-1", SHAPE, 10).eval().requires_grad_(False)
    student = new_network(config, "student", SHAPE, 10)
    return InversionTraining(config, teacher, student, SHAPE, 10, ((0.3,), (0.4,)), world, folder=folder, seed=seed)
