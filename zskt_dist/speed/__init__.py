"""Fast paths: other ways to compute the same iteration, and which of them a run takes."""

from zskt_dist.speed.cuda_graphs import RecordedTraining, RecordedTransfer, rate_on
from zskt_dist.speed.folding import fold_batch_norm, for_asking
from zskt_dist.speed.picks import Picks, pick, records
from zskt_dist.speed.work import curves_gflop, iteration_gflop, training_gflop

__all__ = [
    "Picks",
    "RecordedTraining",
    "RecordedTransfer",
    "curves_gflop",
    "fold_batch_norm",
    "for_asking",
    "iteration_gflop",
    "pick",
    "rate_on",
    "records",
    "training_gflop",
]
