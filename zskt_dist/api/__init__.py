"""Zero-shot transfer from Python, in this process: takes networks, returns a trained network and its result.

`zskt_dist.transfer`, `zskt_dist.evaluate` and `zskt_dist.mean_transition_error` are these functions.
"""

from zskt_dist.api.measuring import evaluate, mean_transition_error
from zskt_dist.api.results import Evaluation, Progress, TransferResult, TransitionError
from zskt_dist.api.training import transfer

__all__ = [
    "Evaluation",
    "Progress",
    "TransferResult",
    "TransitionError",
    "evaluate",
    "mean_transition_error",
    "transfer",
]
