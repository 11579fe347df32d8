"""`zskt_dist.transfer` at its smallest: a few iterations of a few hundred parameters."""

from typing import Any

import torch
from torch import Tensor, nn

import zskt_dist
from tests.support.nets import TinyClassifier

SHAPE = (1, 4, 4)
SMALL: dict[str, Any] = {
    "input_shape": SHAPE,
    "iterations": 6,
    "batch_size": 8,
    "student_steps": 2,
    "log_every": 2,
    "device": "cpu",
    "progress": False,
}
TINY = {"generator.channels": (8, 4), "generator.z_dim": 5, "evaluation.held_out_images": 16}


def tiny_pair(*, norm: bool = True) -> tuple[nn.Module, nn.Module]:
    """Teacher and student."""
    torch.manual_seed(1)
    return TinyClassifier(3, norm=norm), TinyClassifier(2, norm=norm)


def tiny_transfer(teacher: nn.Module, student: nn.Module, config: dict[str, Any] | None = None, **changes: Any) -> Any:
    return zskt_dist.transfer(teacher, student, config=TINY | (config or {}), **SMALL | changes)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal(state: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """To the bit."""
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)
