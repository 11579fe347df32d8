"""Reads the logits in the output of any network."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from zskt_dist.models.construction import NetworkError

NAMES = ("logits", "output", "out")
"""Names of the logits where a network returns several values, the likeliest first."""


class ReadLogits:
    """A forward hook that makes a network return only its logits, [B, classes].

    Hooks leave the names of layers and weights as they are, and go along with copies of the network. This one is an
    object of a module's class, so that it can be pickled with it.

    Args:
        num_classes: Number of classes of the data.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, _module: nn.Module, _inputs: object, output: Any) -> Tensor:
        """The logits in an output; raises NetworkError where there are none of so many classes."""
        return logits_of(output, self.num_classes)


def logits_of(output: Any, num_classes: int | None = None) -> Tensor:
    """The logits in a network's output, which is a tensor, or a mapping, sequence or object that holds one.

    A part called `logits`, `output` or `out` is taken, else the first tensor of shape [B, classes].

    Args:
        num_classes: Number of classes; None: any number, on which parts without such names must agree.

    Raises:
        NetworkError: no part fits.
    """
    found = output if isinstance(output, Tensor) else _likeliest(output, num_classes)
    if _fits(found, num_classes):
        return found
    shape = list(found.shape)
    if found.ndim == 2:
        raise NetworkError(f"returns logits of {shape[1]} classes, and the data has {num_classes}")
    raise NetworkError(f"returns a tensor {shape} where logits are expected, {_expected(num_classes)}")


def _likeliest(output: Any, num_classes: int | None) -> Tensor:
    parts = {name: value for name, value in _parts(output) if isinstance(value, Tensor)}
    for name in NAMES:
        if name in parts:
            return parts[name]
    fitting = [value for value in parts.values() if _fits(value, num_classes)]
    if len({value.shape[1] for value in fitting}) == 1:
        return fitting[0]
    held = ", ".join(f"{name} {list(value.shape)}" for name, value in parts.items()) or "no tensor"
    which = "one of them alone" if fitting else "one of them"
    raise NetworkError(
        f"returns a {type(output).__name__} of {held}; {which} has to be the logits, {_expected(num_classes)}, "
        f"or be called {', '.join(NAMES)}"
    )


def _fits(value: Tensor, num_classes: int | None) -> bool:
    return value.ndim == 2 and num_classes in (None, value.shape[1])


def _expected(num_classes: int | None) -> str:
    return f"[images, {'classes' if num_classes is None else num_classes}]"


def _parts(output: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of what a container holds."""
    if isinstance(output, Mapping):
        yield from output.items()
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from zip(output._fields, output, strict=True)
    elif isinstance(output, tuple | list):
        yield from ((str(number), value) for number, value in enumerate(output))
    elif dataclasses.is_dataclass(output):
        yield from ((field.name, getattr(output, field.name)) for field in dataclasses.fields(output))
    else:
        yield from getattr(output, "__dict__", {}).items()
