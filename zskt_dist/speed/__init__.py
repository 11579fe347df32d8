"""Fast paths: other ways to compute the same iteration, and which of them a run takes."""

from zskt_dist.speed.cuda_graphs import RecordedTraining, RecordedTransfer, rate_on
from zskt_dist.speed.folding import fold_batch_norm
from zskt_dist.speed.picks import Picks, pick, records
from zskt_dist.speed.work import iteration_gflop

__all__ = [
    "Picks",
    "RecordedTraining",
    "RecordedTransfer",
    "fold_batch_norm",
    "iteration_gflop",
    "pick",
    "rate_on",
    "records",
]
