"""Untrained networks of timm and torchvision by name, and their declared inputs; nothing is downloaded."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from torch import nn

from zskt_dist.errors import did_you_mean
from zskt_dist.extras import lacking
from zskt_dist.models.construction import ImageShape, NetworkError, Options, OptionsError, construct

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""


class InputSpec(NamedTuple):
    """The images that a network takes and the classes that it tells apart; None where that is not declared."""

    image_shape: ImageShape | None = None
    num_classes: int | None = None
    statistics: Statistics | None = None
    """Images are normalised as (pixel - mean) / std."""


def from_timm(name: str, image_shape: ImageShape, num_classes: int, options: Options) -> nn.Module:
    """Calls `timm.create_model`; networks of a fixed input size are made for the size of the images.

    Raises:
        NetworkError: timm is not installed or has no such network; OptionsError: the network takes no such options.
    """
    check_in_library(f"timm:{name}")
    import timm

    _refuse(options, "pretrained", "checkpoint_path", "num_classes", "in_chans")
    given: dict[str, Any] = {"pretrained": False, "in_chans": image_shape.channels, "num_classes": num_classes}
    if timm.models.get_pretrained_cfg_value(name, "fixed_input_size") and "img_size" not in options:
        given["img_size"] = (image_shape.height, image_shape.width)
    return cast(nn.Module, construct(timm.create_model, given | {"model_name": name}, options))


def from_torchvision(name: str, image_shape: ImageShape, num_classes: int, options: Options) -> nn.Module:
    """Calls `torchvision.models.get_model`; replaces the first convolution where images do not have three channels.

    Raises:
        NetworkError: torchvision is not installed or has no such classifier, or its first layer cannot be replaced;
            OptionsError: the network takes no such options.
    """
    check_in_library(f"torchvision:{name}")
    from torchvision import models

    _refuse(options, "weights", "num_classes")
    given: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name.lower().startswith("vit_") and "image_size" not in options:
        if image_shape.height != image_shape.width:
            raise NetworkError(f"takes square images only, got {image_shape.height}x{image_shape.width}")
        given["image_size"] = image_shape.height
    if name.lower().startswith("maxvit_") and "input_size" not in options:
        given["input_size"] = (image_shape.height, image_shape.width)
    network = cast(nn.Module, construct(models.get_model, given | {"name": name}, options))
    if name.lower().startswith("densenet"):
        network.register_load_state_dict_pre_hook(_rename_densenet)
    if image_shape.channels != 3:
        _replace_first_convolution(network, image_shape.channels)
    return network


def check_in_library(arch: str) -> None:
    """Raises NetworkError where `timm:NAME` or `torchvision:NAME` is not installed, or has no network of that name."""
    library, _, name = arch.partition(":")
    if library not in ("timm", "torchvision"):
        return
    if problem := lacking(library):
        raise NetworkError(problem)
    if library == "timm":
        import timm

        if ":" in name or not timm.is_model(name):  # timm would fetch what "hf-hub:…" names
            raise NetworkError(f"timm has no network {name!r}{did_you_mean(name, timm.list_models(), most=3)}")
        return
    from torchvision import models

    known = models.list_models(module=models)
    if name.lower() not in known:
        raise NetworkError(f"torchvision has no classifier {name!r}{did_you_mean(name.lower(), known, most=3)}")


def options_for_weights(arch: str, names: Iterable[str], image_shape: ImageShape, options: Options) -> dict[str, Any]:
    """Further options that torchvision gives a network that it makes for weights.

    Its GoogLeNet and Inception v3 then transform their input, of three channels, from ImageNet's normalisation to
    another one, which no state dict tells. They have auxiliary heads where the weights do.

    Args:
        names: Of the weights.
        options: Those that are given, which stay.
    """
    heads = {"torchvision:googlenet": {"aux1", "aux2"}, "torchvision:inception_v3": {"AuxLogits"}}.get(arch.lower())
    if heads is None:
        return {}
    found: dict[str, Any] = {"transform_input": True} if image_shape.channels == 3 else {}
    if not any(heads & set(name.split(".")) for name in names):
        found["aux_logits"] = False
    return {name: value for name, value in found.items() if name not in options}


def input_spec_of_arch(arch: str) -> InputSpec:
    """The declared inputs of the default weights of `timm:NAME` and `torchvision:NAME`, most of them for ImageNet.

    For other weights of the same network these are only defaults. Other names declare nothing; neither do networks that
    the library lacks or has no facts about.
    """
    library, _, name = arch.partition(":")
    known = {"timm": _timm_spec, "torchvision": _torchvision_spec}
    try:
        return known[library](name) if library in known else InputSpec()
    except ImportError:  # building the network raises a clear error later
        return InputSpec()


def _refuse(options: Options, *names: str) -> None:
    """Refuses options that the data decides, and options that would load weights by another way than `checkpoint`."""
    for name in names:
        if name in options:
            raise OptionsError(
                f"{name} is no option: classes and channels are the data's, weights come from teacher.checkpoint"
            )


def _rename_densenet(_module: nn.Module, weights: dict[str, Any], prefix: str, *_: object) -> None:
    """Gives weights in torchvision's files, such as `denselayer1.norm.1.weight`, the names of its networks: `norm1`."""
    for name in list(weights):
        weights[re.sub(r"(denselayer\d+\.(?:norm|conv))\.(?=\d\.)", r"\1", name)] = weights.pop(name)


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Replaces the first convolution by one with the same arguments for images of so many channels."""
    name, first = next(((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise NetworkError(f"takes images of 3 channels and has no first convolution to replace, got {channels}")
    assert isinstance(first.padding, tuple | str)
    new = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
    )
    network.set_submodule(name, new)


def _timm_spec(name: str) -> InputSpec:
    import timm

    try:
        about = timm.get_pretrained_cfg(name)
    except RuntimeError:  # the name is known, but its tag is not
        return InputSpec()
    if about is None:
        return InputSpec()
    return InputSpec(ImageShape(*about.input_size), about.num_classes or None, (tuple(about.mean), tuple(about.std)))


def _torchvision_spec(name: str) -> InputSpec:
    from torchvision import models

    if name not in models.list_models(module=models):  # the classifiers; detection and video are elsewhere
        return InputSpec()
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    shape = ImageShape(len(preset.mean), *(2 * preset.crop_size)[:2])  # one number stands for a square
    return InputSpec(shape, len(weights.meta["categories"]), (tuple(preset.mean), tuple(preset.std)))
