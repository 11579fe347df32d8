"""The run's own images: those of its generators on which students are judged."""

from collections.abc import Iterator

import torch
from torch import Tensor

from zskt_dist.distributed.world import World
from zskt_dist.evaluation.held_out import stored_sources
from zskt_dist.evaluation.image_sources import batches
from zskt_dist.export.exported_network import Subject


@torch.no_grad()
def pseudo_images(subject: Subject) -> Iterator[Tensor]:
    """`evaluation.held_out_images` of every snapshot, normalised, in batches [B, C, H, W]; none without any."""
    config, world = subject.config, World(torch.device("cpu"))
    sources = stored_sources(config, subject.directory.snapshots, subject.image_shape, world)
    for number, source in enumerate(sources):
        if source.iteration is not None:  # not noise
            yield from batches(source, number, config)
