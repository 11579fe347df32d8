"""Engines of the tasks that learn without data: Adam, a cosine that ends at zero, and clipping (section 4.1)."""

import math
from functools import partial

import torch
from torch import nn

from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.engine import Engine
from zskt_dist.engine.building import new_engine
from zskt_dist.models import TappedNetwork, keep_activations
from zskt_dist.speed import FastPaths, rate_on


def adam_engine(
    config: Config,
    world: World,
    network: nn.Module,
    learning_rate: float,
    fast_paths: FastPaths,
    *,
    find_unused_parameters: bool = False,
) -> Engine:
    """The engine that trains `network` for all iterations of a configuration; all workers call this together.

    Args:
        learning_rate: Initial one; where steps are recorded they read it from the device.
        find_unused_parameters: True if some parameters may not affect the network's output.
    """
    recorded = fast_paths.cuda_graphs
    rate = rate_on(world.device, learning_rate) if recorded else learning_rate
    return new_engine(
        config,
        world,
        network,
        partial(torch.optim.Adam, lr=rate, fused=True, capturable=recorded),
        partial(cosine_decay, iterations=config.iterations),
        batch_size=config.batch_size,
        clip_norm=config.optimizer.clip_norm,
        bfloat16=fast_paths.autocast is not None,
        find_unused_parameters=find_unused_parameters,
    )


def cosine_decay(iteration: int, iterations: int) -> float:
    """Learning-rate factor from 1 to 0 over the run (section 4.1)."""
    return (1 + math.cos(math.pi * iteration / iterations)) / 2


def released(tapped: nn.Module) -> nn.Module:
    """The network inside, without the hooks of a training."""
    assert isinstance(tapped, TappedNetwork)
    tapped.release()
    keep_activations(tapped.network)
    return tapped.network
