"""Networks as a configuration asks for them: built, seeded, read back."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.errors import ConfigError
from zskt_dist.models import Generator, ImageShape, build_network, checkpoint_activations
from zskt_dist.runtime.mirror import local_file
from zskt_dist.runtime.weights import load_into, read_about, read_weights
from zskt_dist.runtime.world import World
from zskt_dist.streams import Purpose, stream


def new_network(config: Config, role: str, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """The network of `config.teacher` or `config.student`, initialised from its seed.

    Raises:
        ConfigError: the architecture is unknown or cannot take these images.
    """
    arch: str = getattr(config, role).arch
    seed_initialisation(config.teacher_seed if role == "teacher" else config.seed, role)
    try:
        return build_network(arch, image_shape, num_classes)
    except ValueError as error:
        raise ConfigError(f"{role}.arch", arch, str(error)) from None


def new_generator(config: Config, image_shape: ImageShape) -> Generator:
    """The generator of a configuration for images of this shape, initialised from the run's seed."""
    seed_initialisation(config.seed, "generator")
    return Generator(config.generator.z_dim, image_shape, config.generator.channels)


def load_trained(config: Config, role: str, path: Path) -> tuple[nn.Module, ImageShape]:
    """A trained network from its weights, frozen and in eval mode, and the shape of its images."""
    about: dict[str, Any] = read_about(path)
    shape = ImageShape(*about["image_shape"])
    network = read_network(config, role, shape, about["num_classes"], path, f"{role} weights")
    return network.eval().requires_grad_(False), shape


def read_network(
    config: Config,
    role: str,
    image_shape: ImageShape,
    num_classes: int,
    path: Path | str,
    key: str,
    world: World | None = None,
) -> nn.Module:
    """The network of `config.teacher` or `config.student` with the weights of `path`.

    Args:
        path: May be a URI.
        key: Configuration key that names the file, for messages.
        world: All its workers call together, and rank 0 alone reads the file.

    Raises:
        ConfigError: no such file, damaged, unsafe, or it does not fit the architecture.
    """
    network = new_network(config, role, image_shape, num_classes)

    def read() -> dict[str, Tensor]:
        return read_weights(local_file(str(path), key), key)

    load_into(network, world.from_main(read) if world else read(), key, path)
    return network


def seed_initialisation(seed: int, role: str) -> None:
    """Initialisations of different networks are independent, and equal on all workers."""
    number = ("teacher", "student", "generator").index(role)
    torch.manual_seed(int(stream(seed, Purpose.INITIALISATION, number).integers(2**63)))


def synchronised(network: nn.Module, config: Config, world: World) -> nn.Module:
    """`network`; with `batch_norm: sync`, statistics of the global batch; it works on CUDA only."""
    if config.engine.batch_norm == "local" or world.size == 1:
        return network
    if world.device.type != "cuda":
        raise ConfigError("engine.batch_norm", "sync", f"needs CUDA, this worker has {world.device}; use local")
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def with_checkpointing(config: Config, *networks: nn.Module) -> None:
    """With `engine.activation_checkpointing`, backward passes recompute what is inside the networks' blocks."""
    if config.engine.activation_checkpointing:
        for network in networks:
            checkpoint_activations(network)
