"""Zero-shot knowledge transfer by adversarial belief matching, distributed.

Bring a trained classifier without its data, take home a small student that behaves like it
(Micaelli & Storkey, NeurIPS 2019, arXiv:1905.09768).
"""

import importlib
from typing import TYPE_CHECKING, Any

from zskt_dist.version import __version__ as __version__

if TYPE_CHECKING:
    from zskt_dist.api import (
        Evaluation,
        Progress,
        TransferResult,
        TransitionError,
        evaluate,
        mean_transition_error,
        transfer,
    )


__all__ = [
    "Evaluation",
    "Progress",
    "TransferResult",
    "TransitionError",
    "evaluate",
    "mean_transition_error",
    "transfer",
]


def __getattr__(name: str) -> Any:
    """What is named above comes with torch, so it is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "evaluate":  # also the command's module, which can be called; the same whoever asks first
        return importlib.import_module("zskt_dist.evaluate")
    return getattr(importlib.import_module("zskt_dist.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
