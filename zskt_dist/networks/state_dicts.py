"""Finds state dicts in checkpoints of any origin."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

PLAIN = (
    *("state_dict", "model_state_dict", "model", "student_state_dict", "teacher_state_dict", "student", "teacher"),
    *("net_state_dict", "net", "network_state_dict", "network", "module", "weights", "params"),
)
"""Keys under which checkpoints keep weights, the likeliest first."""
AVERAGED = ("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema", "shadow")
"""Keys under which checkpoints keep exponential moving averages of weights."""

_DEPTH = 3
"""Most keys on the way to a state dict; a file may hold endless mappings, or one within itself."""


class StateDict(dict[str, Tensor]):
    """Weights by name, with the versions of the modules that they are from, which their loaders ask for."""

    _metadata: Mapping[str, dict[str, Any]] | None = None
    """By path of the module, as torch keeps them; None where a file keeps none, as safetensors."""
    at_top = False
    """True if the names are to be taken as they stand, without any prefix."""

    @classmethod
    def of(cls, loaded: Mapping[str, object]) -> "StateDict":
        """The tensors in a mapping, by the names that are text."""
        found = cls(
            (name, value) for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)
        )
        found._metadata = getattr(loaded, "_metadata", None)
        found.at_top = getattr(loaded, "at_top", False)
        return found


class Found(NamedTuple):
    """A state dict, and the keys that lead to it: `""` at the top, else `a`, `a.b` or `a.b.c`."""

    place: str
    weights: StateDict


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
    if tensors := StateDict.of(loaded):
        yield Found("", tensors)


def printable(name: object) -> str:
    """A name from a file, quoted where it would not fit into a message of one line."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def listed(names: list[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
