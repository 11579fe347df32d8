"""Builds and seeds the networks of a configuration, and reads trained ones."""

import logging
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from zskt_dist.config import Config
from zskt_dist.config.inputs import BROUGHT, Student, Teacher, is_brought
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError
from zskt_dist.logs import NOTE
from zskt_dist.models import (
    AmbiguousOutputError,
    Examination,
    Generator,
    ImageShape,
    NetworkError,
    OptionsError,
    Statistics,
    ask,
    build_network,
    checkpoint_activations,
    device_of,
    examine,
    is_own,
    options_for_weights,
    uses_all_parameters,
)
from zskt_dist.models.logits import ReadLogits
from zskt_dist.networks.state_dicts import StateDict
from zskt_dist.networks.weights import WeightsFile, digest_of, load_into
from zskt_dist.streams import Purpose, stream

log = logging.getLogger(__name__)

T = TypeVar("T")


def new_network(
    config: Config, role: str, image_shape: ImageShape, num_classes: int, statistics: Statistics | None = None
) -> nn.Module:
    """The network of `config.teacher` or `config.student`, initialised from its seed, and examined if it is not ours.

    On the meta device, where there are no values, it is not examined.

    Args:
        statistics: Mean and standard deviation of its images; None: they are normalised.

    Raises:
        ConfigError: the architecture is unknown, takes no such options, or cannot take these images; it answers
            something else than logits or probabilities.
    """
    network = unexamined_network(config, role, image_shape, num_classes)
    if device_of(network).type != "meta":
        examine_as(config, role, network, image_shape, statistics)
    return network


def unexamined_network(config: Config, role: str, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """As `new_network`, but nobody has asked it anything yet."""
    section = _section(config, role)
    if section.output is not None and is_own(section.arch):
        problem = f"{section.arch} returns logits and nothing else; leave it out"
        raise ConfigError(f"{role}.output", section.output, problem)
    seed_initialisation(config.teacher_seed if role == "teacher" else config.seed, role)
    try:
        return build_network(section.arch, image_shape, num_classes, section.options, section.output)
    except OptionsError as error:
        raise ConfigError(f"{role}.options", section.options, f"{section.arch}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{role}.arch", section.arch, str(error)) from None


def examine_as(
    config: Config, role: str, network: nn.Module, image_shape: ImageShape, statistics: Statistics | None = None
) -> None:
    """Has the output of a network that is not ours read as what it is.

    Raises:
        ConfigError: it answers something else than logits or probabilities.
    """
    if not is_own(_section(config, role).arch):
        try:
            examine(network, image_shape, statistics)
        except NetworkError as error:
            raise unfit(config, role, error) from None


def unfit(config: Config, role: str, error: NetworkError) -> ConfigError:
    """The error for a network that fails, or answers no logits, with the key that mends it."""
    section = _section(config, role)
    if isinstance(error, AmbiguousOutputError):
        problem = f"{section.arch} {error}; name them: {role}.output={error.names[-1]}"
        return ConfigError(f"{role}.output", section.output, problem)
    return ConfigError(f"{role}.arch", section.arch, str(error))


def _section(config: Config, role: str) -> Teacher | Student:
    section: Teacher | Student = getattr(config, role)
    return section


def examination_of(network: nn.Module) -> Examination | None:
    """What was found about a network when it was built or read; None: it is one of ours, which return logits."""
    reading = ReadLogits.on(network)
    return reading.found if reading else None


def check_gradients(config: Config, **networks: nn.Module) -> None:
    """Raises ConfigError for a network, by role, through which no gradient reaches the images."""
    for role, network in networks.items():
        if (found := examination_of(network)) and found.problem:
            raise ConfigError(f"{role}.arch", _section(config, role).arch, found.problem)


def outlines(
    config: Config,
    roles: Sequence[str],
    image_shape: ImageShape,
    num_classes: int,
    *,
    trained: Collection[str] = ("teacher", "student"),
) -> dict[str, nn.Module]:
    """Networks by role for checks before training; each has made one forward pass.

    They are on the meta device, which takes milliseconds and no memory; on the CPU where user code needs real values.

    Args:
        trained: Roles of those that will be trained: so they are asked in training mode, too.

    Raises:
        ConfigError: a network cannot be built, cannot take these images, or returns no logits.
    """

    def outline(role: str) -> nn.Module:
        network = new_network(config, role, image_shape, num_classes)
        try:
            ask(network, image_shape, trained=role in trained)
        except NetworkError as error:
            raise unfit(config, role, error) from None
        return network

    return outlined(lambda: {role: outline(role) for role in roles})


def outlined(make: Callable[[], T]) -> T:
    """What `make` builds and asks on the meta device, or else on the CPU; raises the errors that it raises there."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            # Of user code that loads its own weights; nothing is computed with them here.
            warnings.filterwarnings("ignore", message="for .* copying from a non-meta parameter")
            return make()
    except ConfigError:
        return make()


def new_generator(config: Config, image_shape: ImageShape, statistics: Statistics | None = None) -> Generator:
    """The generator of a configuration for images of this shape, initialised from the run's seed.

    Args:
        statistics: Mean and standard deviation of the images, which bound them; None: they are not bounded.
    """
    seed_initialisation(config.seed, "generator")
    return Generator(config.generator.z_dim, image_shape, config.generator.channels, statistics)


def load_trained(config: Config, role: str, source: Path | WeightsFile) -> tuple[nn.Module, ImageShape]:
    """A trained network from its weights, frozen and in eval mode, and the shape of its images.

    Raises:
        ConfigError: the file is damaged, or no run has written it.
    """
    file = source if isinstance(source, WeightsFile) else WeightsFile.open(source, f"{role} weights")
    about: dict[str, Any] = file.about
    if not {"image_shape", "num_classes"} <= about.keys():
        raise ConfigError(file.key, file.location, "does not say for which images it is, as the file of a run does")
    shape = ImageShape(*about["image_shape"])
    network = read_network(config, role, shape, about["num_classes"], file, file.key)
    return network.eval().requires_grad_(False), shape


def read_network(
    config: Config,
    role: str,
    image_shape: ImageShape,
    num_classes: int,
    source: Path | str | WeightsFile,
    key: str,
    world: World | None = None,
    statistics: Statistics | None = None,
    *,
    quiet: bool = False,
) -> nn.Module:
    """The network of `config.teacher` or `config.student` with the weights of a file, or with those that it comes with.

    It is examined if it is not ours.

    Args:
        source: The location of the file, a path or a URI, or a file that has been read already; or `none:DIGEST`.
        key: Configuration key that names the file, for messages.
        world: All workers call this together; only rank 0 reads the file.
        statistics: Mean and standard deviation of its images; None: they are normalised.
        quiet: True if a later reading of the file says what of it is taken.

    Raises:
        ConfigError: the file is missing, damaged or unsafe, or does not fit the architecture; see `new_network`.
    """
    world = world or World(torch.device("cpu"))
    if isinstance(source, str) and is_brought(source):
        network = _brought(config, image_shape, num_classes, source, key, world)
        examine_as(config, role, network, image_shape, statistics)
        return network

    def read() -> tuple[Config, StateDict]:
        file = source if isinstance(source, WeightsFile) else WeightsFile.open(source, key)
        return suited(config, role, image_shape, file, quiet=quiet)

    config, weights = world.from_main(read)
    network = unexamined_network(config, role, image_shape, num_classes)
    location = source.location if isinstance(source, WeightsFile) else source
    load_into(network, weights, key, location, num_classes, quiet=quiet or not world.is_main)
    examine_as(config, role, network, image_shape, statistics)
    return network


def brought_by(network: nn.Module) -> str:
    """What stands for the location of the weights that a network has come with: `none:` and sixteen hex digits."""
    return f"{BROUGHT}:{digest_of(network)[:16]}"


def _brought(
    config: Config, image_shape: ImageShape, num_classes: int, source: str, key: str, world: World
) -> nn.Module:
    """The teacher as its code makes it, on every worker with the weights that it has on rank 0."""
    network = unexamined_network(config, "teacher", image_shape, num_classes)

    def checked() -> dict[str, Any]:
        if (now := brought_by(network)) != source:
            problem = f"{config.teacher.arch} comes with other weights now ({now}); bring back those that it came with"
            raise ConfigError(key, source, f"{problem}, or start another run with teacher.checkpoint=none")
        return network.state_dict()

    network.load_state_dict(world.from_main(checked))
    return network


def suited(
    config: Config, role: str, image_shape: ImageShape, file: WeightsFile, *, quiet: bool = False
) -> tuple[Config, StateDict]:
    """The weights in a file, and `config` with the options that their library makes such a network with.

    Args:
        quiet: True if a later reading says what is taken.

    Raises:
        ConfigError: the file is damaged or unsafe, or it is ours and of another network; or the student's options have
            to be said, as those of a network that is trained on are saved with it.
    """
    section = _section(config, role)
    weights = file.tensors(role, section.prefix if isinstance(section, Teacher) else None, quiet=quiet)
    about = file.about
    for name, here in (("arch", section.arch), ("options", section.options)):
        if about.get(name, here) != here:
            problem = f"was saved with {name} {about[name]!r}, and {role}.{name} is {here!r}; they must be the same"
            raise ConfigError(file.key, file.location, problem)
    found = {} if about else options_for_weights(section.arch, weights, image_shape, section.options)
    if not found:
        return config, weights
    said = " ".join(f"{role}.options.{name}={str(value).lower()}" for name, value in found.items())
    if role == "student":
        raise ConfigError(file.key, file.location, f"torchvision makes such a network for weights with {said}; say so")
    if not quiet:
        otherwise = "if they were trained otherwise, say so"
        log.log(NOTE, "%s=%s: takes %s, as torchvision does for weights; %s", file.key, file.location, said, otherwise)
    options = {**section.options, **found}
    return config.model_copy(update={role: section.model_copy(update={"options": options})}), weights


def seed_initialisation(seed: int, role: str) -> None:
    """Seeds torch: initialisations of different networks are independent, and equal on all workers."""
    number = ("teacher", "student", "generator").index(role)
    torch.manual_seed(int(stream(seed, Purpose.INITIALISATION, number).integers(2**63)))


def may_not_use_all(network: nn.Module, image_shape: ImageShape, world: World) -> bool:
    """True if DDP must search for parameters that do not affect the network's output."""
    return world.size > 1 and not uses_all_parameters(network, image_shape)


def seed_layers(seed: int, world: World, iteration: int) -> None:
    """Seeds what layers draw in an iteration (dropout), so that a resumed run needs no saved random state."""
    torch.manual_seed(int(stream(seed, Purpose.LAYERS, iteration, world.rank).integers(2**63)))


def with_checkpointing(config: Config, *networks: nn.Module) -> None:
    """With `engine.activation_checkpointing`, makes backward passes recompute the activations in networks' blocks."""
    if config.engine.activation_checkpointing:
        for network in networks:
            checkpoint_activations(network)
