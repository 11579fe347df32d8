"""Networks that belong to the caller: checks before training that leave them unchanged."""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zskt_dist.errors import ConfigError, UserError
from zskt_dist.models import (
    AmbiguousOutputError,
    Examination,
    ImageShape,
    NetworkError,
    Statistics,
    device_of,
    examine,
    keep_activations,
    tensors_of,
)
from zskt_dist.models.construction import SCRIPTED, cannot_take, describe_error
from zskt_dist.models.examination import kind_of
from zskt_dist.models.logits import ReadLogits, logits_of, one_number
from zskt_dist.networks.fitting import not_finite

Numbers = Sequence[float] | float
_MEAN, _STD = 0.5, 0.25
"""Taken where nothing is known: of most data sets the inputs lie within these bounds, or little beyond."""


class AmbiguousAnswerError(UserError):
    """Several parts of what a network returns may be the logits; the message names one of them."""

    def __init__(self, role: str, part: str, problem: str) -> None:
        named = f'name them: config={{"{role}.output": "{part}"}}'
        remedy = named if role in ("teacher", "student") else "wrap it in a network that returns the logits alone"
        super().__init__(f"{role} {problem}; {remedy}")


def check_network(role: str, network: object, *, scripted: bool = False) -> None:
    """Raises UserError for a class, a state dict and all else that is no network.

    Args:
        scripted: True if a TorchScript module is one, too, as where only its answers matter.
    """
    if not isinstance(network, nn.Module):
        what = f"the class {network.__name__}" if isinstance(network, type) else f"a {type(network).__name__}"
        raise UserError(f"{role} is {what}; give a network, an instance of torch.nn.Module")
    if isinstance(network, torch.jit.ScriptModule) and not scripted:
        raise UserError(f"{role} {SCRIPTED}; give the torch.nn.Module that it was made from")


def frozen_view(role: str, network: nn.Module, device: torch.device | None = None) -> nn.Module:
    """`network` in eval mode and without gradients, as a copy of its modules that shares their weights.

    Mode, gradients, hooks and device of the network itself stay as they are, whatever happens to the copy.

    Args:
        role: Name of the network in messages.
        device: Where the copy lies; weights that lie elsewhere are copied. None: where the network is.

    Raises:
        UserError: the network holds something that cannot be copied.
    """
    try:
        # Includes tensors of an earlier forward pass, which are part of a graph and could not be copied.
        shared: dict[int, Any] = {id(tensor): _frozen(tensor) for tensor in tensors_of(network)}
        view = copy.deepcopy(network, shared)
    except Exception as error:  # foreign code may raise anything
        raise UserError(f"{role} cannot be copied: {describe_error(error)}") from error
    view = view.to(device or device_of(network))
    # A TorchScript module takes no hooks, which read answers; what it is in does.
    return (nn.Sequential(view) if isinstance(view, torch.jit.ScriptModule) else view).eval()


def _frozen(tensor: Tensor) -> Tensor:
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(tensor.detach(), requires_grad=False) if is_parameter else tensor.detach()


@contextmanager
def unchanged_on_failure(network: nn.Module) -> Iterator[None]:
    """Restores a network's modes, device and activations where the code inside fails."""
    modes, device = [(module, module.training) for module in network.modules()], device_of(network)
    try:
        yield
    except BaseException:
        keep_activations(network)
        network.to(device)
        for module, training in modes:
            module.training = training
        raise


def images_of(teacher: nn.Module, given: object) -> ImageShape:
    """(C, H, W) of a teacher's images: as given, else as it declares; warns where the two differ.

    Raises:
        ConfigError: neither is known, or it is not three positive numbers.
    """
    about = getattr(teacher, "pretrained_cfg", None)  # timm's
    declared = about.get("input_size") if isinstance(about, Mapping) else None
    if given is None and declared is None:
        problem = "the teacher does not declare its images; give (channels, height, width), for example (3, 32, 32)"
        raise ConfigError("input_shape", None, problem)
    shape = image_shape(declared if given is None else given)
    if declared not in (None, shape, list(shape)):
        message = f"input_shape={tuple(shape)} is taken; the teacher's pretrained_cfg says {declared}"
        warnings.warn(message, stacklevel=3)
    return shape


def statistics_of(teacher: nn.Module, shape: ImageShape, mean: object, std: object) -> Statistics:
    """Mean and standard deviation of a teacher's images: as given, else as it declares, else a guess with a warning.

    One number stands for all channels.

    Raises:
        ConfigError: only one of them is known, or not one number for each channel.
    """
    about = getattr(teacher, "pretrained_cfg", None)  # timm's
    if isinstance(about, Mapping) and len(about.get("mean", ())) == shape.channels:
        mean, std = (about.get(name) if given is None else given for name, given in (("mean", mean), ("std", std)))
    if mean is None and std is None:
        message = (
            f"the teacher does not declare how its images are normalised: mean {_MEAN} and std {_STD} are taken, so "
            f"its inputs lie between {-_MEAN / _STD:g} and {(1 - _MEAN) / _STD:g}; give mean and std, 0 and 1 for a "
            "network that takes pixels in [0, 1]"
        )
        warnings.warn(message, stacklevel=3)
        mean, std = _MEAN, _STD
    return _of_channels("mean", mean, shape.channels), _of_channels("std", std, shape.channels)


def _of_channels(name: str, value: object, channels: int) -> tuple[float, ...]:
    numbers = [value] * channels if isinstance(value, int | float) else value
    try:
        found = tuple(float(number) for number in numbers)  # type: ignore[attr-defined]
        found = found * channels if len(found) == 1 else found
    except (TypeError, ValueError):
        found = ()
    if name == "std" and found and min(found) <= 0:
        raise ConfigError(name, value, "is to be above zero, as images are divided by it; 1 leaves them as they are")
    if len(found) != channels or not all(map(math.isfinite, found)):
        problem = f"expected {channels} number(s), one for each channel, of pixels in [0, 1]"
        raise ConfigError(name, value, problem)
    if name == "mean" and max(map(abs, found)) > 1:
        raise ConfigError(name, value, "is of pixels in [0, 1], not of bytes; divide mean and std by 255")
    return found


def image_shape(value: object) -> ImageShape:
    """A value as (C, H, W).

    Raises:
        ConfigError: the value is not three positive numbers.
    """
    sizes = tuple(value) if isinstance(value, tuple | list | torch.Size) else ()
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise ConfigError("input_shape", value, "expected (channels, height, width), for example (3, 32, 32)")
    return ImageShape(*sizes)


def answer_of(
    role: str, network: nn.Module, x: Tensor, output: str | None = None, classes: int | None = None
) -> Tensor:
    """The logits [B, classes] that `network` returns for images [B, C, H, W].

    Args:
        role: Name of the network in messages.
        output: Name of the logits where it returns several values.
        classes: How many classes they tell apart; None: that is not known.

    Raises:
        UserError: the network cannot take the images, or its output holds no logits; AmbiguousAnswerError: several
            parts of it may be the logits.
    """
    answer = _ask(role, network, x)
    try:
        logits = logits_of(answer, classes, output)
    except AmbiguousOutputError as error:
        raise AmbiguousAnswerError(role, error.names[-1], str(error)) from None
    except NetworkError as error:
        one = isinstance(answer, Tensor) and answer.is_floating_point() and answer.shape == (len(x),)
        raise UserError(f"{role} {one_number('stack') if one and len(x) > 1 else error}") from None
    if len(logits) != len(x):
        raise UserError(f"{role} answers logits {list(logits.shape)} to images {list(x.shape)}")
    return logits


def _ask(role: str, network: nn.Module, x: Tensor) -> Any:
    """Whatever a network returns; raises UserError where it fails."""
    try:
        return network(x)
    except NetworkError as error:
        raise UserError(f"{role} {error}") from None
    except Exception as error:  # foreign code may raise anything
        problem = cannot_take(f"{list(x.shape)} of {x.dtype}", error)
        if x.dtype != (own := _type_of(network)):
            kind = str(own).removeprefix("torch.")
            problem = f"takes {kind} images; give normalised {kind} images, not {x.dtype} ({describe_error(error)})"
        raise UserError(f"{role} {problem}") from error


def _type_of(network: nn.Module) -> torch.dtype:
    weights = (each.dtype for each in network.parameters() if each.is_floating_point())
    return next(weights, torch.get_default_dtype())


@torch.no_grad()
def shared_classes(
    networks: Mapping[str, nn.Module],
    x: Tensor,
    outputs: Mapping[str, str | None] | None = None,
    labels: Tensor | None = None,
) -> int | None:
    """The one number of classes of which all networks' answers to images may be logits; None where there is none.

    A network that returns several values, of which more than one may be the logits, is so read by what the others say.

    Args:
        networks: By role, in eval mode.
        outputs: Names of the logits, by role, where the networks return several values.
        labels: Integers, whose largest decides where the networks do not.

    Raises:
        UserError: a network cannot take the images.
    """
    possible: list[set[int]] = []
    for role, network in networks.items():
        answer = _ask(role, network, x.to(device_of(network)))
        try:
            possible.append({logits_of(answer, name=(outputs or {}).get(role)).shape[1]})
        except AmbiguousOutputError as error:
            possible.append(error.classes)
        except NetworkError:  # `answer_of` says what is wrong
            return None
    shared = set.intersection(*possible)
    if len(shared) > 1 and labels is not None and labels.numel():
        shared &= {int(labels.long().max()) + 1}
    return shared.pop() if len(shared) == 1 else None


@torch.no_grad()
def read_answers(networks: Mapping[str, nn.Module], x: Tensor, labels: Tensor | None) -> None:
    """Has `frozen_view`s return their logits from now on, and the logarithms of probabilities, with a warning.

    What they answer is seen by a batch of images. Logits may lie as probabilities do by chance, but then those of the
    negatives of the images do not.

    Args:
        networks: By role.
        labels: Of the images, or of more of them; None: they are not known.

    Raises:
        UserError: a network cannot take the images, or returns no logits.
    """
    classes = shared_classes(networks, x, labels=labels)
    for role, network in networks.items():
        here = x.to(device_of(network))
        reading = ReadLogits(classes)
        reading.probabilities = all(
            kind_of(answer_of(role, network, each, classes=classes)) == "probabilities" for each in (here, -here)
        )
        network.register_forward_hook(reading)
        if reading.probabilities:
            warnings.warn(f"{role}: {Examination(answers='probabilities')}", stacklevel=5)  # two frames are torch's


@torch.no_grad()
def count_classes(
    role: str, network: nn.Module, shape: ImageShape, output: str | None = None, shared: int | None = None
) -> int:
    """Number of classes of a `frozen_view`, by a forward pass; raises UserError where that fails, or there is one.

    Args:
        output: Name of the logits where it returns several values.
        shared: The number that `shared_classes` has found.
    """
    x = torch.zeros(2, *shape, device=device_of(network))
    logits = answer_of(role, network, x, output, shared)
    if role == "student":  # it may return more in training
        with _unmoved(network):
            answer_of(role, network.train(), x, output, shared)
    if not torch.isfinite(logits).all():
        broken = not_finite(network.state_dict().items())
        cause = (
            f"its weights are not finite, first in {broken}" if broken else "its weights are finite; look at its code"
        )
        raise UserError(f"{role} answers {logits[0].tolist()[:3]}… to an image of zeros: {cause}")
    if logits.shape[1] == 1:
        raise UserError(f"{role} {one_number()}")
    return logits.shape[1]


@contextmanager
def _unmoved(network: nn.Module) -> Iterator[None]:
    """Restores running statistics, and what is drawn from torch's random state, at the end."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        with torch.random.fork_rng([device] if (device := device_of(network)).type == "cuda" else []):
            yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


@contextmanager
def reading_logits(
    role: str, network: nn.Module, classes: int, shape: ImageShape, statistics: Statistics | None, output: str | None
) -> Iterator[None]:
    """The network returns logits meanwhile, whatever it returns; what is unusual about its answers is a warning.

    Raises:
        UserError: they are no logits or probabilities of classes, or no gradient of them reaches the images.
    """
    reading = ReadLogits(classes, output)
    network.register_forward_hook(reading)
    try:
        try:
            found = examine(network, shape, statistics)
        except NetworkError as error:
            raise UserError(f"{role} {error}") from None
        if found.problem:
            raise UserError(f"{role}: {found.problem}")
        if found != Examination():
            warnings.warn(f"{role}: {found}", stacklevel=4)
        if found.warning:
            warnings.warn(f"{role} {found.warning}", stacklevel=4)
        yield
    finally:
        reading.remove_from(network)


def check_pair(teacher: nn.Module, student: nn.Module) -> None:
    """Raises UserError where training the student would change the teacher, or nothing."""
    if {id(parameter) for parameter in teacher.parameters()} & {id(parameter) for parameter in student.parameters()}:
        raise UserError("teacher and student share weights; the student must be a network of its own")
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise UserError("student has no parameter that takes a gradient, so it cannot learn")
