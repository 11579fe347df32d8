"""What timm and torchvision say about the images that each of their networks takes; nothing is built or downloaded."""

from typing import NamedTuple

from zskt_dist.models.construction import ImageShape

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""


class Declared(NamedTuple):
    """Of the images a network takes and the classes it tells apart; None where nothing is said."""

    image_shape: ImageShape | None = None
    num_classes: int | None = None
    statistics: Statistics | None = None
    """Images are normalised as (pixel - mean) / std."""


def declared_by_arch(arch: str) -> Declared:
    """What `timm:NAME` and `torchvision:NAME` say of the weights they offer by default, most of them of ImageNet.

    For a network of that name with other weights these are no more than defaults. Other names, and those that the
    library does not know or does not say anything about, declare nothing.
    """
    library, _, name = arch.partition(":")
    known = {"timm": _timm, "torchvision": _torchvision}
    try:
        return known[library](name) if library in known else Declared()
    except ImportError:  # whoever builds the network tells that the library is missing
        return Declared()


def _timm(name: str) -> Declared:
    import timm

    try:
        about = timm.get_pretrained_cfg(name)
    except RuntimeError:  # the name is known and its tag is not
        return Declared()
    if about is None:
        return Declared()
    return Declared(ImageShape(*about.input_size), about.num_classes or None, (tuple(about.mean), tuple(about.std)))


def _torchvision(name: str) -> Declared:
    from torchvision import models

    if name not in models.list_models(module=models):  # the classifiers; detection and video are elsewhere
        return Declared()
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    shape = ImageShape(len(preset.mean), *(2 * preset.crop_size)[:2])  # one number stands for a square
    return Declared(shape, len(weights.meta["categories"]), (tuple(preset.mean), tuple(preset.std)))
