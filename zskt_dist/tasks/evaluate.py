"""Measuring a finished run, as a stage."""

from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.evaluation.run_evaluation import RunEvaluation
from zskt_dist.speed import fastest_convolutions
from zskt_dist.tasks.base import Context


def run(context: Context, stop: StopVote) -> None:
    fastest_convolutions(context.world.device)
    RunEvaluation(context.directory, context.config, context.images, context.world, stop).run()
