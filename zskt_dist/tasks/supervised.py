"""Training on real images, put together: from scratch, KD + AT, and finetuning a zero-shot student."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.algorithms.supervised import Distillation, SupervisedTraining, step_decay
from zskt_dist.config import Config
from zskt_dist.data import ImageDataset, TrainingBatches, balanced_subset
from zskt_dist.distributed.world import World
from zskt_dist.engine import Engine
from zskt_dist.engine.building import new_engine
from zskt_dist.files import write_json
from zskt_dist.models import TappedNetwork
from zskt_dist.networks.attention import Attention, pair_layers, tap_pair
from zskt_dist.networks.building import may_not_use_all, new_network, seed_layers, with_checkpointing
from zskt_dist.speed import RecordedTraining, rate_on, uses_cuda_graphs
from zskt_dist.tracking.base import Row


class Training(Protocol):
    """One step of a supervised algorithm."""

    def step(self, x: Tensor, label: Tensor, /) -> Metrics: ...


class SupervisedTask:
    """Batches of real images through a supervised algorithm; what differs is built by the functions below.

    Args:
        seed_layers: Called before each iteration with its number.

    Attributes:
        subset: Positions in the train split, where only some images per class are seen.
        attention: Layers that are compared with the teacher's; None: the algorithm compares none.
    """

    def __init__(
        self,
        phase: str,
        engine: Engine,
        training: Training,
        batches: TrainingBatches,
        iterations: int,
        subset: np.ndarray | None = None,
        attention: Attention | None = None,
        *,
        seed_layers: Callable[[int], None],
    ) -> None:
        self._seed_layers = seed_layers
        self.phase, self.iterations, self.subset, self.attention = phase, iterations, subset, attention
        self.weight = engine.weight
        self.engines: Mapping[str, Engine] = {"teacher" if phase == "teacher" else "student": engine}
        self.training, self.batches, self._engine = training, batches, engine

    @property
    def speed(self) -> str:
        return "cuda graphs" if isinstance(self.training, RecordedTraining) and self.training.works else "plain"

    def step(self, iteration: int) -> Metrics:
        self._seed_layers(iteration)
        return self.training.step(*self.batches(iteration))

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        with self._engine.whole() as tapped:
            yield tapped.get_submodule("network")

    def judge(self, network: nn.Module, iteration: int) -> Row:
        return {}

    def picture(self, path: Path | None) -> bool:
        return False

    def save_subset(self, path: Path) -> None:
        """Writes down which training images are seen, where that is a choice."""
        if self.subset is not None:
            write_json(path, {"split": "train", "indices": self.subset.tolist()})


def from_scratch(config: Config, role: str, dataset: ImageDataset, world: World) -> SupervisedTask:
    """Cross entropy with the paper's SGD recipe; a teacher always sees all images."""
    network = new_network(config, role, dataset.image_shape, dataset.num_classes).to(world.device)
    with_checkpointing(config, network)
    unused = may_not_use_all(network, dataset.image_shape, world)
    engine = _sgd(config, TappedNetwork(network), world, unused)
    seed = config.teacher_seed if role == "teacher" else config.seed
    subset = None if role == "teacher" else _subset(config, dataset)
    batches = _batches(config.supervised.batch_size, seed, dataset, world, subset)
    phase = "teacher" if role == "teacher" else "scratch"
    training = _steps(SupervisedTraining(engine), config, world)
    layers = partial(seed_layers, seed, world)
    return SupervisedTask(phase, engine, training, batches, config.supervised_iterations, subset, seed_layers=layers)


def distillation(config: Config, teacher: nn.Module, dataset: ImageDataset, world: World) -> SupervisedTask:
    """KD + AT with the same SGD recipe.

    Raises:
        ConfigError: layers do not exist or do not pair, as for `ZeroShotTask`, or a class has too few images.
    """
    network = new_network(config, "student", dataset.image_shape, dataset.num_classes).to(world.device)
    with_checkpointing(config, network)
    attention = pair_layers(config, teacher, network, dataset.image_shape, weight="distill")
    tapped_teacher, tapped_student = tap_pair(config, teacher, network, attention, weight="distill")
    unused = may_not_use_all(network, dataset.image_shape, world)
    engine = _sgd(config, tapped_student, world, unused)
    settings = config.distill
    training = _steps(
        Distillation(
            engine,
            tapped_teacher,
            temperature=settings.temperature,
            alpha=settings.alpha,
            beta=settings.beta,
            attention=config.loss.attention,
        ),
        config,
        world,
    )
    subset = _subset(config, dataset)
    batches = _batches(config.supervised.batch_size, config.seed, dataset, world, subset)
    layers = partial(seed_layers, config.seed, world)
    return SupervisedTask(
        "distill", engine, training, batches, config.supervised_iterations, subset, attention, seed_layers=layers
    )


def finetuning(config: Config, student: nn.Module, dataset: ImageDataset, world: World) -> SupervisedTask:
    """Cross entropy with Adam from a trained student, its batch norm in eval mode unless asked otherwise."""
    settings = config.finetune
    student = student.to(world.device).train(settings.batch_norm == "train").requires_grad_(True)
    with_checkpointing(config, student)
    recorded = uses_cuda_graphs(config, world.device, world.size)
    rate = rate_on(world.device, settings.learning_rate) if recorded else settings.learning_rate
    adam = partial(torch.optim.Adam, lr=rate, fused=True, capturable=recorded)
    engine = new_engine(
        config,
        world,
        TappedNetwork(student),
        adam,
        lambda iteration: 1.0,
        batch_size=settings.batch_size,
        find_unused_parameters=may_not_use_all(student, dataset.image_shape, world),
    )
    subset = _subset(config, dataset)
    batches = _batches(settings.batch_size, config.seed, dataset, world, subset)
    training = _steps(SupervisedTraining(engine), config, world)
    layers = partial(seed_layers, config.seed, world)
    return SupervisedTask("finetune", engine, training, batches, settings.iterations, subset, seed_layers=layers)


def _sgd(config: Config, network: nn.Module, world: World, unused: bool) -> Engine:
    recipe = config.supervised
    recorded = uses_cuda_graphs(config, world.device, world.size)
    rate = rate_on(world.device, recipe.learning_rate) if recorded else recipe.learning_rate

    def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        optimizer = torch.optim.SGD(
            parameters, lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        optimizer.register_step_pre_hook(_begin_momentum)
        return optimizer

    schedule = partial(
        step_decay, iterations=config.supervised_iterations, milestones=recipe.milestones, decay=recipe.decay
    )
    size = recipe.batch_size
    return new_engine(config, world, network, sgd, schedule, batch_size=size, find_unused_parameters=unused)


def _begin_momentum(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Zeros where a parameter gets its first gradient, which may be late; fused SGD begins all at once."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _steps(training: SupervisedTraining | Distillation, config: Config, world: World) -> Training:
    """`training`, on CUDA recorded."""
    if not uses_cuda_graphs(config, world.device, world.size):
        return training
    return RecordedTraining(training, required=config.speed.cuda_graphs is True)


def _subset(config: Config, dataset: ImageDataset) -> np.ndarray | None:
    count = config.data.images_per_class
    if count is None:
        return None
    return balanced_subset(dataset.train.labels, dataset.num_classes, count, config.seed)


def _batches(size: int, seed: int, dataset: ImageDataset, world: World, subset: np.ndarray | None) -> TrainingBatches:
    return TrainingBatches(dataset, size, seed, world.device, world.part(size), subset)
