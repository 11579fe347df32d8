"""Finds state dicts in checkpoints of any origin, and fits them to a network by name."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

PLAIN = (
    *("state_dict", "model_state_dict", "model", "student_state_dict", "teacher_state_dict", "student", "teacher"),
    *("net_state_dict", "net", "network_state_dict", "network", "module", "weights", "params"),
)
"""Keys under which checkpoints keep weights, the likeliest first."""
AVERAGED = ("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema", "shadow")
"""Keys under which checkpoints keep exponential moving averages of weights."""
PREFIXES = ("module.", "_orig_mod.", "model.", "network.")
"""Prefixes that DDP, torch.compile and wrappers such as Lightning's add to all names."""

_DEPTH = 3
"""Most keys on the way to a state dict; a file may hold endless mappings, or one within itself."""
_SHOWN = 3


class Found(NamedTuple):
    """A state dict, and the keys that lead to it: `""` at the top, else `a`, `a.b` or `a.b.c`."""

    place: str
    weights: dict[str, Tensor]


def find_state_dicts(loaded: object, role: str = "", depth: int = _DEPTH) -> Iterator[Found]:
    """Yields the state dicts in a checkpoint by preference: those named after the role, plain ones, averaged ones.

    Args:
        role: `teacher` or `student`.
        depth: Number of keys that may lead to a state dict.
    """
    if not isinstance(loaded, Mapping):
        return
    first = [f"{role}_state_dict", role]
    for key in [*first, *(key for key in PLAIN if key not in first), *AVERAGED]:
        if depth and isinstance(loaded.get(key), Mapping):
            for place, weights in find_state_dicts(loaded[key], role, depth - 1):
                yield Found(f"{key}.{place}".rstrip("."), weights)
    tensors = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield Found("", tensors)


def fitted(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], num_classes: int | None) -> dict[str, Tensor]:
    """`weights` by the names of a network; batch norm's counters, which older files lack, start at 0.

    Args:
        expected: The network's own state dict; only its names and shapes are used.
        num_classes: Length of its logits, for messages.

    Raises:
        ValueError: names or shapes differ, or a weight is not finite; the first ones are listed.
    """
    counters = {name: own for name, own in expected.items() if name.endswith("num_batches_tracked")}
    renamed = {name: torch.zeros_like(own, device="cpu") for name, own in counters.items()}
    renamed |= _without_prefixes(weights, expected)
    missing = [name for name in expected if name not in renamed]
    unexpected = [name for name in renamed if name not in expected]
    reshaped = {
        name: (tuple(renamed[name].shape), tuple(tensor.shape))
        for name, tensor in expected.items()
        if name in renamed and renamed[name].shape != tensor.shape
    }
    shapes = [f"{name} is {was} instead of {needed}" for name, (was, needed) in reshaped.items()]
    problems = [
        f"{what}: {', '.join(map(printable, names[:_SHOWN]))}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
        if names
    ]
    if problems:
        words = _in_words(list(reshaped.values()), num_classes)
        raise ValueError("; ".join([f"does not fit the architecture{words}", *problems]))
    broken = [name for name, tensor in renamed.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"has weights that are not finite, first in {broken[0]}")
    return renamed


def printable(name: object) -> str:
    """A name from a file, shortened and quoted for a message of one line."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def _without_prefixes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without prefixes, where that leaves names of the network."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = name
        while short not in expected and (match := re.match("|".join(map(re.escape, PREFIXES)), short)):
            short = short[match.end() :]
        taken = short not in expected or (short != name and short in weights)
        renamed[name if taken else short] = tensor
    return renamed


def _in_words(reshaped: list[tuple[tuple[int, ...], tuple[int, ...]]], num_classes: int | None) -> str:
    """The cause of wrong shapes in words, where it is clear."""
    heads = {(was[:1], needed[:1]) for was, needed in reshaped if was[1:] == needed[1:]}
    if len(heads) == 1:
        ((was, needed),) = heads
        if needed == (num_classes,) and was:
            return f": it was trained for {was[0]} classes, and here there are {num_classes}"
    images = [(was, needed) for was, needed in reshaped if len(was) == len(needed) == 4 and was[1] != needed[1]]
    if len(reshaped) == len(images) == 1:
        was, needed = images[0]
        return f": it was trained on images of {was[1]} channels, and here they have {needed[1]}"
    return ""
