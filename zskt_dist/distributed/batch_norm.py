"""Running batch-norm statistics, which each worker keeps for its own slice of the batch.

Evaluation and export see their average over the workers. The workers' own statistics go on
untouched, so that how often a run is evaluated or saved changes nothing in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zskt_dist.distributed.world import World


def running_statistics(network: nn.Module) -> dict[str, Tensor]:
    """The running means and variances of `network` by name; views, not copies."""
    return {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}


@contextmanager
def averaged_statistics(network: nn.Module, world: World) -> Iterator[nn.Module]:
    """`network` in eval mode with the average statistics of all workers."""
    buffers = list(running_statistics(network).values())
    own = [buffer.clone() for buffer in buffers]
    was_training = network.training
    if world.size > 1 and buffers:
        flat = world.sum(torch.cat([buffer.flatten() for buffer in buffers])) / world.size
        for buffer, mean in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))
    network.eval()
    try:
        yield network
    finally:
        network.train(was_training)
        for buffer, value in zip(buffers, own, strict=True):
            buffer.copy_(value)


def load_statistics(network: nn.Module, of_ranks: list[dict[str, Tensor]], world: World) -> None:
    """Restores each rank's `running_statistics`; with another number of workers, their average."""
    for name, buffer in running_statistics(network).items():
        values = [statistics[name] for statistics in of_ranks]
        buffer.copy_(values[world.rank] if len(values) == world.size else torch.stack(values).mean(dim=0))
