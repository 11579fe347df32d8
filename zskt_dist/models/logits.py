"""Reads the logits in the output of any network."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zskt_dist.models.construction import NetworkError

if TYPE_CHECKING:
    from zskt_dist.models.examination import Examination

NAMES = ("logits", "output", "out")
"""Names of the logits where a network returns several values, the likeliest first."""


def one_number(join: Literal["cat", "stack"] = "cat") -> str:
    """What messages say of a network that answers [B, 1], or [B], whose numbers are to be stacked."""
    return (
        "returns one number for an image, which tells two classes apart; have it return one for each of the two: "
        f"torch.{join}([torch.zeros_like(x), x], dim=1) of a number x before the sigmoid, or "
        f"torch.{join}([1 - p, p], dim=1) of a probability p"
    )


class AmbiguousOutputError(NetworkError):
    """Several parts of an output may be the logits; the user has to name one of `names`.

    Attributes:
        classes: The numbers of classes of which they may be.
    """

    def __init__(self, names: list[str], text: str, classes: Collection[int] = ()) -> None:
        super().__init__(text)
        self.names, self.classes = names, set(classes)


class ReadLogits:
    """A forward hook that makes a network return only its logits, [B, classes].

    Hooks leave the names of layers and weights as they are, and go along with copies of the network. This one is an
    object of a module's class, so that it can be pickled with it.

    Args:
        num_classes: Number of classes of the data; None: any number.
        output: Name of the part that is read, a key, a field or a number; None: the likeliest.

    Attributes:
        probabilities: True if the network answers probabilities, of which the logarithms are taken.
        found: What an examination of the network has found (`models.examination`).
    """

    def __init__(self, num_classes: int | None, output: str | None = None) -> None:
        self.num_classes, self.output = num_classes, output
        self.probabilities = False
        self.found: Examination | None = None
        self._repeats = False

    def __call__(self, _module: nn.Module, _inputs: object, output: Any) -> Tensor:
        """The logits in an output; raises NetworkError where there are none of so many classes."""
        found = logits_of(output, self.num_classes, self.output)
        found = logarithms(found) if self.probabilities else found
        return found[:-1] if self._repeats else found

    @classmethod
    def on(cls, network: nn.Module) -> "ReadLogits | None":
        """The one that reads a network's output; None where the network returns its logits by itself."""
        return next((hook for hook in network._forward_hooks.values() if isinstance(hook, cls)), None)

    def remove_from(self, network: nn.Module) -> None:
        """Removes this hook, and the one of `ask_in_pairs`."""
        for hooks in (network._forward_hooks, network._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if self in (hook, getattr(hook, "__self__", None)):
                    del hooks[key]

    def ask_in_pairs(self, network: nn.Module) -> RemovableHandle:
        """From now on a single image is asked for twice and answered once, for networks that fail on one alone."""
        return network.register_forward_pre_hook(self._repeat_first)

    def _repeat_first(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        x, *rest = inputs
        # An exported program is the same for all batches: there the first image is always repeated.
        self._repeats = torch.compiler.is_exporting() or len(x) == 1
        return (torch.cat([x, x[:1]]), *rest) if self._repeats else None


def logarithms(probabilities: Tensor) -> Tensor:
    """Their logarithms, at least float32: logits of the same beliefs; 0 counts as the smallest normal number."""
    precise = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    return precise.clamp_min(torch.finfo(precise.dtype).tiny).log()


def logits_of(output: Any, num_classes: int | None = None, name: str | None = None) -> Tensor:
    """The logits in a network's output, which is a tensor, or a mapping, sequence or object that holds one.

    A part called `logits`, `output` or `out` is taken, else the only tensor of shape [B, classes].

    Args:
        num_classes: Number of classes; None: any number.
        name: Key, field or number of the part, where there are several; None: as above.

    Raises:
        NetworkError: no part fits; AmbiguousOutputError: several do.
    """
    found = output if isinstance(output, Tensor) else _part(output, num_classes, name)
    if _fits(found, num_classes):
        return found
    shape = list(found.shape)
    if found.ndim in (1, 2) and not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        problem = f"returns {kind} {shape}, as numbers of classes are; have it return what stands before the argmax"
        raise NetworkError(f"{problem}, the logits {_expected(num_classes)}")
    if found.ndim == 1 and num_classes == 2:
        raise NetworkError(one_number("stack"))
    if found.ndim == 2:
        if (shape[1], num_classes) == (1, 2):
            raise NetworkError(one_number())
        raise NetworkError(f"returns logits of {shape[1]} classes, and the data has {num_classes}")
    raise NetworkError(f"returns a tensor {shape} where logits are expected, {_expected(num_classes)}")


def _part(output: Any, num_classes: int | None, name: str | None) -> Tensor:
    parts = {str(key): value for key, value in _parts(output) if isinstance(value, Tensor)}
    if name is not None:
        if name in parts:
            return parts[name]
        raise AmbiguousOutputError(list(parts), f"{_returned(output, parts)}, and none is called {name!r}")
    for likely in NAMES:
        if likely in parts:
            return parts[likely]
    fitting = [key for key, value in parts.items() if _fits(value, num_classes)]
    if len(fitting) == 1:
        return parts[fitting[0]]
    returned = _returned(output, parts)
    if fitting:
        classes = {parts[key].shape[1] for key in fitting}
        raise AmbiguousOutputError(fitting, f"{returned}, of which {' and '.join(fitting)} may be the logits", classes)
    raise NetworkError(
        f"{returned}; one of them has to be the logits, {_expected(num_classes)}, or be called {', '.join(NAMES)}"
    )


def _returned(output: Any, parts: Mapping[str, Tensor]) -> str:
    """What came back, for messages alone: torch.compile cannot write out the sizes of a batch of any size."""
    held = ", ".join(f"{key} {list(value.shape)}" for key, value in parts.items()) or "no tensor"
    return f"returns a {type(output).__name__} of {held}"


def _fits(value: Tensor, num_classes: int | None) -> bool:
    return value.ndim == 2 and value.is_floating_point() and num_classes in (None, value.shape[1])


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
