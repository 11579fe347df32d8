"""Fast paths: other ways to compute the same iteration, and which of them a run takes."""

from zskt_dist.speed.cuda_graphs import RecordedTraining, RecordedTransfer, rate_on
from zskt_dist.speed.folding import fold_batch_norm
from zskt_dist.speed.picks import PLAIN, Picks, fastest_convolutions, pick, records
from zskt_dist.speed.work import iteration_gflop, training_gflop

__all__ = [
    "PLAIN",
    "Picks",
    "RecordedTraining",
    "RecordedTransfer",
    "fastest_convolutions",
    "fold_batch_norm",
    "iteration_gflop",
    "pick",
    "rate_on",
    "records",
    "training_gflop",
]
