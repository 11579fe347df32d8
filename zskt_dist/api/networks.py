"""Networks that belong to the caller: looked at without a trace, and checked before anything is trained."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zskt_dist.errors import ConfigError, UserError
from zskt_dist.models import ImageShape, NetworkError, device_of, keep_activations, tensors_of
from zskt_dist.models.construction import describe_error
from zskt_dist.models.logits import logits_of


def frozen_view(role: str, network: nn.Module, device: torch.device | None = None) -> nn.Module:
    """`network` in eval mode and without gradients, as a copy of its modules that shares their weights.

    Mode, gradients, hooks and device of the network itself stay as they are, whatever is done to the copy.

    Args:
        role: What the network is called in messages.
        device: Where the copy lies; weights that lie elsewhere are copied. None: where the network is.

    Raises:
        UserError: it holds something that cannot be copied.
    """
    try:
        # Also what an earlier forward pass has left, which is part of a graph and could not be copied.
        shared: dict[int, Any] = {id(tensor): _frozen(tensor) for tensor in tensors_of(network)}
        view = copy.deepcopy(network, shared)
    except Exception as error:  # somebody else's code may raise anything
        raise UserError(f"{role} cannot be copied: {describe_error(error)}") from error
    return view.eval().to(device or device_of(network))


def _frozen(tensor: Tensor) -> Tensor:
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(tensor.detach(), requires_grad=False) if is_parameter else tensor.detach()


@contextmanager
def unchanged_on_failure(network: nn.Module) -> Iterator[None]:
    """Where what is done inside fails, the network has its modes, its device and its activations back."""
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
    """(C, H, W) of a teacher's images: as given, else as it tells itself; where the two differ there is a warning.

    Raises:
        ConfigError: neither gives one, or it is not three positive numbers.
    """
    about = getattr(teacher, "pretrained_cfg", None)  # timm's
    declared = about.get("input_size") if isinstance(about, Mapping) else None
    if given is None and declared is None:
        problem = "the teacher does not say what images it takes; give (channels, height, width), such as (3, 32, 32)"
        raise ConfigError("input_shape", None, problem)
    shape = image_shape(declared if given is None else given)
    if declared not in (None, shape, list(shape)):
        message = f"input_shape={tuple(shape)} is taken; the teacher's pretrained_cfg says {declared}"
        warnings.warn(message, stacklevel=3)
    return shape


def image_shape(value: object) -> ImageShape:
    """(C, H, W).

    Raises:
        ConfigError: it is not three positive numbers.
    """
    sizes = tuple(value) if isinstance(value, tuple | list | torch.Size) else ()
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise ConfigError("input_shape", value, "expected (channels, height, width), for example (3, 32, 32)")
    return ImageShape(*sizes)


def answer_of(role: str, network: nn.Module, x: Tensor) -> Tensor:
    """The logits [B, classes] in what `network` answers to images [B, C, H, W].

    Args:
        role: What the network is called in messages.

    Raises:
        UserError: it cannot take the images, or its answer holds no logits.
    """
    try:
        logits = logits_of(network(x))
    except NetworkError as error:
        raise UserError(f"{role} {error}") from None
    except Exception as error:  # somebody else's code may raise anything
        raise UserError(f"{role} cannot take images {list(x.shape)} of {x.dtype}: {describe_error(error)}") from error
    if len(logits) != len(x):
        raise UserError(f"{role} answers logits {list(logits.shape)} to images {list(x.shape)}")
    return logits


@torch.no_grad()
def count_classes(role: str, network: nn.Module, shape: ImageShape) -> int:
    """Found by asking a `frozen_view`; raises as `answer_of`, and where the answer is not finite."""
    logits = answer_of(role, network, torch.zeros(1, *shape, device=device_of(network)))
    if not torch.isfinite(logits).all():
        raise UserError(f"{role} answers {logits[0].tolist()[:3]}… to an empty image: its weights are not finite")
    return logits.shape[1]


def check_pair(teacher: nn.Module, student: nn.Module) -> None:
    """Raises UserError where training the student would change the teacher, or nothing."""
    if {id(parameter) for parameter in teacher.parameters()} & {id(parameter) for parameter in student.parameters()}:
        raise UserError("teacher and student share weights; the student must be a network of its own")
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise UserError("student has no parameter that takes a gradient, so it cannot learn")
