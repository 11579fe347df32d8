"""Counts the operations of an iteration from one forward pass of each network."""

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.inversion import round_starts
from zskt_dist.config import Config
from zskt_dist.models import ImageShape, device_of


def iteration_gflop(
    config: Config, generator: nn.Module, teacher: nn.Module, student: nn.Module, image_shape: ImageShape
) -> float:
    """Operations of one iteration over all workers, in thousands of millions, accurate to a tenth.

    A backward pass to the input costs as much as a forward pass, and one to the parameters as much again. Linear and
    convolutional layers are counted as they are defined; torch's own counter needs seconds to start.
    """
    g, t, s = _each(config, generator, teacher, student, image_shape)
    n_s = config.transfer.student_steps
    draws = {"post_update": 1, "pre_update": 0, "fresh": n_s}[config.transfer.pseudo_batch]
    each = config.transfer.generator_steps * (3 * g + 2 * t + 2 * s) + draws * (g + t) + n_s * 3 * s
    return config.batch_size * each / 1e9


def inversion_gflop(
    config: Config,
    generator: nn.Module,
    teacher: nn.Module,
    student: nn.Module,
    image_shape: ImageShape,
    iterations: int | None = None,
) -> float:
    """Operations of an inversion over all workers, counted in the same way, up to its first so many iterations."""
    g, t, s = _each(config, generator, teacher, student, image_shape)
    inversion = config.inversion
    done = config.iterations if iterations is None else iterations
    rounds = sum(first < done for first in round_starts(config.iterations, inversion.rounds, inversion.spread))
    steps = (rounds + (inversion.warm_up if rounds else 0)) * inversion.steps
    made = steps * inversion.images * (3 * g + 2 * t + (0 if inversion.gap == "none" else 2 * s))
    asked = rounds * inversion.images_of_round * inversion.views * t
    return (made + asked + done * config.batch_size * 3 * s) / 1e9


def training_gflop(batch_size: int, network: nn.Module, image_shape: ImageShape) -> float:
    """Operations of one step of a network that is trained alone, in the same unit."""
    return 3 * batch_size * forward_flop(network, image_shape) / 1e9


def _each(
    config: Config, generator: nn.Module, teacher: nn.Module, student: nn.Module, image_shape: ImageShape
) -> tuple[int, int, int]:
    """Operations of a forward pass for one image, of generator, teacher and student."""
    return (
        forward_flop(generator, (config.generator.z_dim,)),
        forward_flop(teacher, image_shape),
        forward_flop(student, image_shape),
    )


def forward_flop(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Operations of one forward pass for one example, two for each multiply-add of linear and convolutional layers."""
    counts: list[int] = []

    def count(layer: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        counts.append(2 * output.numel() * layer.weight[0].numel())

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    training, device = network.training, device_of(network)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape, device=device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return sum(counts)
