"""Zero-shot knowledge transfer by adversarial belief matching, distributed.

Bring a trained classifier without its data, take home a small student that behaves like it
(Micaelli & Storkey, NeurIPS 2019, arXiv:1905.09768).
"""

import importlib
from pathlib import Path
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

# `python -m zskt_dist.VERB` finds commands/VERB.py. Nobody imports a verb by that name, so `zskt_dist.evaluate` stays
# the function.
__path__.append(str(Path(__file__).parent / "commands"))

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
    """Imports the functions above on first use, as they need torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("zskt_dist.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
