"""Networks by name: our own (`wrn-40-2`, `lenet`, …), timm's, torchvision's, and the user's."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from zskt_dist.errors import did_you_mean
from zskt_dist.models.construction import (
    SCRIPTED,
    ImageShape,
    NetworkError,
    Options,
    OptionsError,
    cannot_take,
    construct,
    describe_error,
)
from zskt_dist.models.lenet import LeNet
from zskt_dist.models.libraries import check_in_library, from_timm, from_torchvision
from zskt_dist.models.logits import ReadLogits
from zskt_dist.models.resnet import ResNet
from zskt_dist.models.tensors import device_of
from zskt_dist.models.user_code import as_import_path, from_import_path, import_callable
from zskt_dist.models.vgg import VGG11
from zskt_dist.models.wide_resnet import WideResNet

KNOWN = (
    "wrn-DEPTH-WIDTH with DEPTH = 6 n + 4 (wrn-16-1, wrn-40-2, …), lenet, lenet-WIDTH, resnet18, resnet34, vgg11, "
    "timm:NAME, torchvision:NAME, package.module:callable"
)
_EXAMPLES = ("wrn-16-1", "wrn-16-2", "wrn-40-1", "wrn-40-2", "lenet", "resnet18", "resnet34", "vgg11")
_OWN = re.compile(r"wrn-\d+-\d+|lenet(-\d+)?|resnet(18|34)|vgg11")
_LIBRARIES = {"timm": from_timm, "torchvision": from_torchvision}


def build_network(
    arch: str,
    image_shape: ImageShape,
    num_classes: int,
    options: Options | None = None,
    output: str | None = None,
) -> nn.Module:
    """A freshly initialised network, [B, C, H, W] to logits [B, num_classes]; draws from torch's global random state.

    Args:
        options: Keyword arguments besides those that follow from `arch`, `image_shape` and `num_classes`.
        output: Name of the logits where a network that is not ours returns several values; None: the likeliest.

    Raises:
        ValueError: the name is unknown, or such a network is not possible (NetworkError if the network is not ours);
            OptionsError: `options` are wrong.
    """
    if is_own(arch):
        return _own(arch, image_shape, num_classes, options or {})
    source, _, name = arch.partition(":")
    try:
        if is_user_code(arch):
            network = from_import_path(arch, image_shape, num_classes, options or {})
        else:
            network = _LIBRARIES[source](name, image_shape, num_classes, options or {})
        _make_lazy_layers(network, image_shape)
        _check(network)
    except NetworkError:
        raise
    except Exception as error:  # foreign code may raise anything
        shown = f" with options {dict(options)}" if options else ""
        raise NetworkError(f"cannot be built for {_sizes(image_shape)}{shown}: {describe_error(error)}") from None
    network.register_forward_hook(ReadLogits(num_classes, output))
    return network


def is_own(arch: str) -> bool:
    """True if a name is one of our own networks, which return logits and use all their parameters."""
    return ":" not in arch


def is_user_code(arch: str) -> bool:
    """True if a name is an import path, whose code `build_network` runs; such code may do anything."""
    return not is_own(arch) and arch.partition(":")[0] not in _LIBRARIES


def check_known(arch: str) -> None:
    """Raises NetworkError for a name that no network has; the module of an import path is run."""
    if is_user_code(arch):
        import_callable(arch, "a torch.nn.Module")
    elif not is_own(arch):
        check_in_library(arch)
    elif not _OWN.fullmatch(arch):
        raise NetworkError(_unknown(arch))


def ask(network: nn.Module, image_shape: ImageShape, *, trained: bool = True) -> None:
    """Runs a network on two images, in evaluation mode and, where it is to be trained, in training mode.

    Its statistics move in the latter.

    Raises:
        NetworkError: the network fails, or its output holds no logits.
    """
    images = torch.zeros(2, *image_shape, device=device_of(network))
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(images)
            if trained:
                network.train()(images)
    except NetworkError:
        raise
    except Exception as error:
        raise NetworkError(cannot_take(f"of {_sizes(image_shape)}", error)) from None
    finally:
        network.train(training)


def uses_all_parameters(network: nn.Module, image_shape: ImageShape, tries: int = 4) -> bool:
    """True if every parameter affects a network's output in training; the network stays as it is.

    Args:
        tries: Number of forward passes to check, because some networks skip layers at random.
    """
    images = torch.zeros(2, *image_shape, device=device_of(network))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    buffers, training = [(buffer, buffer.clone()) for buffer in network.buffers()], network.training
    try:
        network.train()
        gradients = (torch.autograd.grad(network(images).sum(), parameters, allow_unused=True) for _ in range(tries))
        return all(gradient is not None for each in gradients for gradient in each)
    finally:
        network.train(training)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _own(arch: str, image_shape: ImageShape, num_classes: int, options: Options) -> nn.Module:
    given: dict[str, Any] = {"in_channels": image_shape.channels, "num_classes": num_classes}
    sized = given | {"image_size": (image_shape.height, image_shape.width)}
    make: Callable[..., nn.Module]
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", arch):
        make, given = WideResNet, given | {"depth": int(match[1]), "width": int(match[2])}
    elif match := re.fullmatch(r"lenet(?:-(\d+))?", arch):
        make, given = LeNet, sized | ({"width": int(match[1])} if match[1] else {})
    elif match := re.fullmatch(r"resnet(18|34)", arch):
        make, given = ResNet, sized | {"depth": int(match[1])}
    elif arch == "vgg11":
        make, given = VGG11, sized
    else:
        raise NetworkError(_unknown(arch))
    try:
        return construct(make, given, options)
    except TypeError as error:  # an option of another type
        raise OptionsError(describe_error(error)) from None


def _unknown(arch: str) -> str:
    if (Path(arch) / "config.json").is_file():
        how = "write a function that returns what its from_pretrained loads, and name it as module:function"
        return f"is a folder, as transformers save networks; {how} (docs/weights.md)"
    if path := as_import_path(arch):
        return f"unknown architecture; did you mean {path!r}?"
    return f"unknown architecture; known are {KNOWN}{did_you_mean(arch, _EXAMPLES)}"


def _make_lazy_layers(network: nn.Module, image_shape: ImageShape) -> None:
    """Lets layers such as `nn.LazyLinear` take their sizes from a first image."""
    if any(is_lazy(each) for each in [*network.parameters(), *network.buffers()]):
        with torch.no_grad():
            network.eval()(torch.zeros(1, *image_shape))
        network.train()


def _check(network: nn.Module) -> None:
    if isinstance(network, torch.jit.ScriptModule):
        raise NetworkError(f"{SCRIPTED}; return the torch.nn.Module that it was made from")
    if next(network.parameters(), None) is None:
        raise NetworkError("returned a network without parameters")
    if any(isinstance(hook, ReadLogits) for hook in network._forward_hooks.values()):
        raise NetworkError("returned a network that it has returned before; it must make a new one each time")


def _sizes(image_shape: ImageShape) -> str:
    return "x".join(map(str, image_shape))
