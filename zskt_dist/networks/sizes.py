"""What a teacher's weights and answers say of its images and classes, before anybody has stated them."""

from contextlib import suppress
from typing import NamedTuple

import torch
from torch import nn

from zskt_dist.config import Config
from zskt_dist.errors import ConfigError
from zskt_dist.models import (
    ImageShape,
    NetworkError,
    ask,
    check_known,
    device_of,
    import_callable,
    input_spec_of_arch,
    is_user_code,
)
from zskt_dist.models.construction import signature_of
from zskt_dist.models.logits import ReadLogits
from zskt_dist.networks.building import outlined, suited, unexamined_network, unfit
from zskt_dist.networks.fitting import Shape, reshaped
from zskt_dist.networks.state_dicts import StateDict
from zskt_dist.networks.weights import WeightsFile, load_into

_CLASSES, _CHANNELS = 977, 13
"""Numbers that no layer has by chance: where a network made for them has them, the file has the right ones."""
_SIDES = (32, 28, 224, 64, 96, 8, 16, 48, 56, 84, 112, 128, 160, 192, 227, 240, 256, 288, 299, 300, 320, 384, 448, 512)
"""Usual sides of square images in pixels, the likeliest first."""


class Sizes(NamedTuple):
    """What the weights say; None: they say nothing of it.

    Attributes:
        sides: Height and width of images that the weights fit, and no smaller or larger usual ones.
    """

    num_classes: int | None = None
    channels: int | None = None
    sides: tuple[int, int] | None = None


def sizes_in(config: Config, file: WeightsFile | None) -> Sizes:
    """What the weights of `config.teacher` say of its classes and images.

    Networks are built for numbers of classes and channels that nobody has, and compared with the file.

    Args:
        file: The weights; None: they come with the network.

    Raises:
        ConfigError: the network is not known, or the weights fit it for no classes and images.
    """
    try:
        if is_user_code(config.teacher.arch):
            import_callable(config.teacher.arch, "a torch.nn.Module")
        else:
            check_known(config.teacher.arch)
    except NetworkError as error:
        raise unfit(config, "teacher", error) from None
    try:
        network, made_for = _first_built(config)
    except ConfigError:
        if file is None and _takes_classes(config):  # it comes with weights for the right number only
            return Sizes()
        raise
    channels = _first_channels(network)
    if file is None:
        return Sizes(channels=channels)
    config, weights = suited(config, "teacher", ImageShape(3, *_usual_sides(config)), file, quiet=True)
    shapes = reshaped(network, weights).values()
    classes = _only({was[0] for was, needed in shapes if needed[:1] == (_CLASSES,) and was[1:] == needed[1:]})
    found = _only({was[1] for was, needed in shapes if len(was) == len(needed) == 4 and needed[1] == _CHANNELS})
    channels = found or channels
    sides = _fitting_sides(config, channels or 3, classes or made_for, file, weights)
    return Sizes(classes, channels, sides)


def answered_classes(
    config: Config, image_shape: ImageShape, num_classes: int | None, file: WeightsFile | None
) -> int | None:
    """Number of classes that the teacher answers to images of this shape; None where it is made for any number.

    Args:
        num_classes: The number if it is known.
        file: The weights; None: they come with the network.

    Raises:
        ConfigError: it cannot be built for these images, its weights do not fit, or it fails or answers no logits.
    """
    if num_classes is None and _takes_classes(config):
        try:
            _built(config, image_shape, _CLASSES)
        except ConfigError:
            return None

    def count() -> int:
        suitable, weights = config, None
        if file:
            suitable, weights = suited(config, "teacher", image_shape, file, quiet=True)
        network = unexamined_network(suitable, "teacher", image_shape, num_classes or _CLASSES)
        if weights is not None and file:
            load_into(network, weights, file.key, file.location, num_classes, quiet=True)
        if (reading := ReadLogits.on(network)) and num_classes is None:
            reading.num_classes = None
        try:
            ask(network, image_shape, trained=False)
        except NetworkError as error:
            raise unfit(config, "teacher", error) from None
        with torch.no_grad():
            return int(network.eval()(torch.zeros(2, *image_shape, device=device_of(network))).shape[1])

    counted = outlined(count)
    return None if num_classes is None and counted == _CLASSES else counted


def _fitting_sides(
    config: Config, channels: int, num_classes: int, file: WeightsFile, weights: StateDict
) -> tuple[int, int] | None:
    """Sides of images that the weights fit, where not all do.

    Raises:
        ConfigError: they do not fit, and sides are not the cause.
    """
    usual = _usual_sides(config)
    for sides in (usual, *((side, side) for side in _SIDES if (side, side) != usual)):
        try:
            network = _built(config, ImageShape(channels, *sides), num_classes)
        except ConfigError:
            if sides == usual:
                return None  # it will be said of the images that the user states
            continue
        sized = _names_that_grow(config, channels, num_classes, network)
        try:
            load_into(network, weights, file.key, file.location, num_classes, quiet=True)
        except ConfigError:
            if not sized or not {*reshaped(network, weights)} <= sized or not reshaped(network, weights):
                raise
        else:
            return sides if sized else None
    return None


def _names_that_grow(config: Config, channels: int, num_classes: int, network: nn.Module) -> set[str]:
    """Names of weights whose shapes depend on the size of the images."""
    here = _shapes(network)
    for side in (64, 96, 448):
        try:
            other = _shapes(_built(config, ImageShape(channels, side, side), num_classes))
        except ConfigError:
            continue
        if grown := {name for name, shape in here.items() if other.get(name) != shape}:
            return grown
    return set()


def _first_built(config: Config) -> tuple[nn.Module, int]:
    """The network for images of any channels, of three or of one, and the number of classes that it is made for.

    Raises:
        ConfigError: it can be built for none of them; the error is that of three channels.
    """
    sides, likely = _usual_sides(config), config.data.num_classes or 10
    for num_classes in (_CLASSES, likely):
        for channels in (_CHANNELS, 3, 1):
            with suppress(ConfigError):
                return _built(config, ImageShape(channels, *sides), num_classes), num_classes
    return _built(config, ImageShape(3, *sides), likely), likely


def _takes_classes(config: Config) -> bool:
    """True for code that is called with the number of classes, which may have weights for one number only."""
    if not is_user_code(config.teacher.arch):
        return False
    signature = signature_of(import_callable(config.teacher.arch, "a torch.nn.Module"))
    return bool(signature and "num_classes" in signature.parameters)


def _built(config: Config, image_shape: ImageShape, num_classes: int) -> nn.Module:
    return outlined(lambda: unexamined_network(config, "teacher", image_shape, num_classes))


def _usual_sides(config: Config) -> tuple[int, int]:
    if config.data.image_shape:
        return config.data.image_shape[1:]
    shape = input_spec_of_arch(config.teacher.arch).image_shape
    return (shape.height, shape.width) if shape else (32, 32)


def _first_channels(network: nn.Module) -> int | None:
    """Channels that the first convolution takes, where its code does not leave that open."""
    channels = next((each.in_channels for each in network.modules() if isinstance(each, nn.Conv2d)), None)
    return None if channels == _CHANNELS else channels


def _shapes(network: nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _only(values: set[int]) -> int | None:
    return next(iter(values)) if len(values) == 1 else None
