"""Jobs and their parts as launchers make them, for tests that go without one."""

from pathlib import Path

import torch
from torch import nn

from zskt_dist.config import Config
from zskt_dist.data import ImageDataset
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.evaluated_run import EvaluatedRun
from zskt_dist.launch.driver import evaluation_job
from zskt_dist.networks.inputs import Inputs
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.base import Context
from zskt_dist.tasks.stages import stages
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))


def train_in(command: str, config: Config, world: World = ALONE) -> RunDirectory:
    """Runs a command's job on this worker; its directory is begun as a driver does."""
    job = Job.plan(command, config)
    directory = job.directory
    if world.is_main:
        directory.begin(command, config, job.goal.inputs.get("teacher"))
    world.barrier()
    Worker(job, world).run()
    return directory


def evaluate_in(directory: Path | str, config: Config, world: World = ALONE) -> None:
    """Evaluates a finished run on this worker."""
    Worker(evaluation_job(EvaluatedRun(RunDirectory(directory), config)), world).run()


def inputs_of(dataset: ImageDataset) -> Inputs:
    """What networks for these images read and answer."""
    return Inputs(dataset.image_shape, dataset.num_classes, dataset.statistics, "data.name", dataset)


def context_of(
    command: str, config: Config, dataset: ImageDataset, world: World = ALONE, **networks: nn.Module
) -> Context:
    """What a task of `command` starts from; its teacher and the student it begins with are given by role."""
    inputs = inputs_of(dataset)

    class Given(Context):
        def network(self, role: str) -> nn.Module:
            return networks[role]

    stage = stages(command, config)[-1]
    return Given(stage, stage.directory, world, lambda: inputs)
