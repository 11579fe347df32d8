"""Images that are not real: those of generators and noise, the same each time they are drawn."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape, Statistics, input_scale
from zskt_dist.streams import Purpose, normal, stream


@dataclass(frozen=True)
class ImageSource:
    """A source of images.

    Attributes:
        draw: (stream, B) -> [B, C, H, W] on the device, in the networks' normalised input space; None: it has `fixed`.
        iteration: Iteration of the generator's snapshot; None: no generator of the run.
        fixed: B -> all images of a source that always has the same, in batches of B.
    """

    name: str
    draw: Callable[[np.random.Generator, int], Tensor] | None = None
    iteration: int | None = None
    fixed: Callable[[int], Iterable[Tensor]] | None = None


def generated(
    generator: nn.Module, iteration: int, z_dim: int, device: torch.device, state: Mapping[str, Tensor] | None = None
) -> ImageSource:
    """Pseudo-images of `generator`, in its present mode.

    Args:
        state: State to load before each batch, where sources share one generator.
    """

    def draw(rng: np.random.Generator, count: int) -> Tensor:
        if state is not None:
            generator.load_state_dict(state)
        images: Tensor = generator(torch.from_numpy(normal(rng, count, z_dim)).to(device))
        return images

    return ImageSource(f"generator_{iteration:08d}", draw, iteration)


def normal_noise(shape: ImageShape, device: torch.device, statistics: Statistics | None = None) -> ImageSource:
    """Normal in the input space, every pixel independent, with the mean and deviation of images there.

    Args:
        statistics: Mean and standard deviation by which pixels are normalised; None: noise is standard normal.
    """
    scale = input_scale(statistics)

    def draw(rng: np.random.Generator, count: int) -> Tensor:
        noise = torch.from_numpy(normal(rng, count, *shape)).to(device)
        if scale is None:
            return noise
        mean, std = (torch.tensor(each, device=device).view(-1, 1, 1) for each in scale)
        return noise * std + mean

    return ImageSource("noise", draw)


def uniform_noise(shape: ImageShape, standardise: Callable[[Tensor], Tensor], device: torch.device) -> ImageSource:
    """Pixels from U{0, …, 255}, every one independent.

    Args:
        standardise: uint8 [B, C, H, W] to the input space.
    """

    def draw(rng: np.random.Generator, count: int) -> Tensor:
        pixels = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        return standardise(torch.from_numpy(pixels).to(device))

    return ImageSource("uniform_noise", draw)


def batches(source: ImageSource, number: int, config: Config) -> Iterator[Tensor]:
    """`evaluation.held_out_images` images of a source, or all that it has, in batches.

    Args:
        number: Number of the source; each has its own random stream.
    """
    if source.fixed:
        return iter(source.fixed(normalised_together(config)))
    rng = stream(config.seed, Purpose.HELD_OUT, number)
    return drawn(source, rng, config.evaluation.held_out_images, normalised_together(config))


def drawn(source: ImageSource, rng: np.random.Generator, images: int, together: int) -> Iterator[Tensor]:
    """Draws so many images in batches [B, C, H, W], B at most `together`.

    The source always draws whole batches, because a generator normalises over them; surplus images are cut off.
    """
    assert source.draw
    for start in range(0, images, together):
        yield source.draw(rng, together)[: images - start]


def normalised_together(config: Config) -> int:
    """Images over which a generator's batch norm takes its statistics: a batch, or a micro-batch of one, rounded up.

    Training does the same on one worker. On several, each normalises over its part, unless batch norm is synchronised;
    here the images are the same for any number of workers.
    """
    parts = math.ceil(config.batch_size / (config.engine.micro_batch or config.batch_size))
    return math.ceil(config.batch_size / parts)


def answers(
    config: Config, sources: Sequence[ImageSource], world: World, *networks: nn.Module
) -> Iterator[tuple[ImageSource, Iterator[list[Tensor]]]]:
    """Yields each source with the networks' logits [b, K] on its images, by batches of this worker's share.

    b may be 0; all workers call the networks equally often.
    """
    for number, source in enumerate(sources):
        yield source, (_logits(x, world, networks) for x in batches(source, number, config))


def _logits(x: Tensor, world: World, networks: Iterable[nn.Module]) -> list[Tensor]:
    """Logits of each network for this worker's share of images [B, C, H, W], which are equal on all workers."""
    mine = x[world.rank :: world.size]
    batch = mine if len(mine) else x[:1]  # not every network can take an empty batch
    return [network(batch)[: len(mine)] for network in networks]
