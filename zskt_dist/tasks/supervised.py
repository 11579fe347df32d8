"""Batches of real images through an algorithm with labels: what pretraining, distillation and finetuning share."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.algorithms.supervised import Distillation, SupervisedTraining, step_decay
from zskt_dist.config import Config
from zskt_dist.data import TrainingBatches, balanced_subset
from zskt_dist.engine import Engine
from zskt_dist.engine.building import new_engine
from zskt_dist.files import write_json
from zskt_dist.models import TappedNetwork
from zskt_dist.networks.building import may_not_use_all, seed_layers
from zskt_dist.speed import RecordedTraining, rate_on, uses_cuda_graphs
from zskt_dist.tasks.base import Context, Lines, PlainTraining


class Steps(Protocol):
    """A supervised algorithm."""

    def step(self, x: Tensor, label: Tensor, /) -> Metrics: ...


class ImageTraining(PlainTraining):
    """An algorithm on shuffled, augmented batches of the images that the task may see.

    Args:
        steps: The algorithm; on CUDA its steps are recorded here.
    """

    def __init__(
        self, context: Context, engine: Engine, steps: SupervisedTraining | Distillation, *, iterations: int, batch: int
    ) -> None:
        task, config, world = context.stage.task, context.config, context.world
        super().__init__("teacher" if task.role == "teacher" else task.name, task.role, engine, iterations)
        self._seed_layers = partial(seed_layers, config.seed, world)
        self.steps: Steps = steps
        if uses_cuda_graphs(config, world.device, world.size):
            self.steps = RecordedTraining(steps, required=config.speed.cuda_graphs is True)
        part = world.part(batch)
        self.batches = TrainingBatches(context.images, batch, config.seed, world.device, part, _subset(context))

    @property
    def speed(self) -> str:
        return "cuda graphs" if isinstance(self.steps, RecordedTraining) and self.steps.works else "plain"

    def step(self, iteration: int) -> Metrics:
        self._seed_layers(iteration)
        return self.steps.step(*self.batches(iteration))


def new_sgd_engine(context: Context, network: TappedNetwork) -> Engine:
    """The paper's recipe (section 4.1): SGD with momentum, the rate falls at milestones."""
    recipe = context.config.supervised
    rate = learning_rate(context, recipe.learning_rate)

    def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        optimizer = torch.optim.SGD(
            parameters, lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        optimizer.register_step_pre_hook(_begin_momentum)
        return optimizer

    iterations = context.config.supervised_iterations
    schedule = partial(step_decay, iterations=iterations, milestones=recipe.milestones, decay=recipe.decay)
    return engine_for(context, network, sgd, schedule, recipe.batch_size)


def engine_for(
    context: Context,
    network: TappedNetwork,
    make_optimizer: Callable[..., torch.optim.Optimizer],
    schedule: Callable[[int], float],
    batch_size: int,
) -> Engine:
    """The engine that trains a tapped network on batches of that size."""
    unused = may_not_use_all(network.network, context.inputs.image_shape, context.world)
    return new_engine(
        context.config,
        context.world,
        network,
        make_optimizer,
        schedule,
        batch_size=batch_size,
        find_unused_parameters=unused,
    )


def learning_rate(context: Context, rate: float) -> float | Tensor:
    """`rate`; as a tensor on the device where steps are recorded."""
    config, world = context.config, context.world
    return rate_on(world.device, rate) if uses_cuda_graphs(config, world.device, world.size) else rate


def describe_recipe(config: Config) -> Lines:
    """The paper's recipe in words."""
    recipe = config.supervised
    steps = f"{config.supervised_iterations:,} steps of {recipe.batch_size}"
    return [("optimizer", f"SGD {recipe.learning_rate:g}, momentum {recipe.momentum:g}, {steps}")]


def _begin_momentum(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Sets the momentum to zero where a parameter gets its first gradient late; fused SGD would start all at once."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _subset(context: Context) -> np.ndarray | None:
    """Positions in the train split of the images that are used, which are also saved; None: all images."""
    count = context.stage.task.images_per_class(context.config)
    if count is None:
        return None
    dataset = context.images
    subset = balanced_subset(dataset.train.labels, dataset.num_classes, count, context.config.seed)
    if context.world.is_main:
        write_json(context.directory.subset, {"split": "train", "indices": subset.tolist()})
    return subset
