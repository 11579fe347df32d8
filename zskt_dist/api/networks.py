"""Networks that belong to the caller: looked at without a trace, and checked before anything is trained."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zskt_dist.errors import ConfigError, UserError
from zskt_dist.models import ImageShape, NetworkError
from zskt_dist.models.logits import logits_of


def frozen_view(network: nn.Module, device: torch.device | None = None) -> nn.Module:
    """`network` in eval mode and without gradients, as a copy of its modules that shares their weights.

    Mode, gradients, hooks and device of the network itself stay as they are, whatever is done to the copy.

    Args:
        device: Where the copy lies; weights that lie elsewhere are copied. None: where the network is.
    """
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in network.parameters()
    }
    shared |= {id(buffer): buffer.detach() for buffer in network.buffers()}
    for module in network.modules():  # tensors that are neither, as weight_norm keeps them, cannot be copied
        shared |= {id(value): value.detach() for value in vars(module).values() if isinstance(value, Tensor)}
    return copy.deepcopy(network, shared).eval().to(device or device_of(network))


def device_of(network: nn.Module) -> torch.device:
    """Where the first parameter lies; the CPU where there is none."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


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
    except (RuntimeError, ValueError, TypeError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{role} cannot take images {list(x.shape)} of {x.dtype}: {line}") from error
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
