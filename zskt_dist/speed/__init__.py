"""Fast paths: other ways to compute the same iteration, and the choice among them."""

from zskt_dist.speed.cuda_graphs import RecordedTraining, RecordedTransfer, rate_on
from zskt_dist.speed.fast_paths import PLAIN, FastPaths, choose_fast_paths, fastest_convolutions, uses_cuda_graphs
from zskt_dist.speed.folding import fold_batch_norm
from zskt_dist.speed.work import forward_flop, inversion_gflop, iteration_gflop, training_gflop

__all__ = [
    "PLAIN",
    "FastPaths",
    "RecordedTraining",
    "RecordedTransfer",
    "choose_fast_paths",
    "fastest_convolutions",
    "fold_batch_norm",
    "forward_flop",
    "inversion_gflop",
    "iteration_gflop",
    "rate_on",
    "training_gflop",
    "uses_cuda_graphs",
]
