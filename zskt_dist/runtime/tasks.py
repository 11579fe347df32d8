"""The two kinds of training, put together from configuration, networks, engines and algorithms."""

import copy
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.algorithms.supervised import SupervisedTraining, step_decay
from zskt_dist.algorithms.transfer import ZeroShotTransfer
from zskt_dist.config import Config
from zskt_dist.data import ImageDataset, TrainingBatches
from zskt_dist.engine import DDPEngine
from zskt_dist.errors import ConfigError
from zskt_dist.models import Generator, ImageShape, TappedNetwork
from zskt_dist.runtime.networks import new_network, seed_initialisation, tap_pair
from zskt_dist.runtime.pictures import save_grid
from zskt_dist.runtime.world import World
from zskt_dist.streams import Purpose, normal, stream


class SupervisedTask:
    """A network trained on real labelled images: how teachers are made."""

    phase = "teacher"

    def __init__(self, config: Config, dataset: ImageDataset, world: World) -> None:
        recipe = config.supervised
        self.iterations = config.supervised_iterations
        self.network = new_network(config, "teacher", dataset.image_shape, dataset.num_classes).to(world.device)
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        schedule = partial(step_decay, iterations=self.iterations, milestones=recipe.milestones, decay=recipe.decay)
        engine = DDPEngine(_synchronised(TappedNetwork(self.network), config, world), optimizer, schedule)
        self.engines: Mapping[str, DDPEngine] = {"teacher": engine}
        self.batches = TrainingBatches(
            dataset, recipe.batch_size, config.seed, world.device, world.part(recipe.batch_size)
        )
        self.training = SupervisedTraining(engine)

    def step(self, iteration: int) -> Metrics:
        return self.training.step(*self.batches(iteration))

    def picture(self, path: Path | None) -> bool:
        return False


class ZeroShotTask:
    """Algorithm 1: needs a teacher and the shape of its images, and never a real image.

    Raises:
        ConfigError: the attention maps of teacher and student do not pair.
    """

    phase = "student"

    def __init__(
        self, config: Config, teacher: nn.Module, image_shape: ImageShape, num_classes: int, world: World
    ) -> None:
        self._config, self._world = config, world
        self.iterations = config.iterations
        self.network = new_network(config, "student", image_shape, num_classes).to(world.device)
        seed_initialisation(config.seed, "generator")
        generator = Generator(config.generator.z_dim, image_shape, config.generator.channels).to(world.device)
        tapped_teacher, tapped_student = tap_pair(config, teacher, self.network, image_shape)
        cosine = partial(cosine_decay, iterations=self.iterations)
        settings = config.optimizer
        self.engines = {
            name: DDPEngine(
                network := _synchronised(module, config, world),
                torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True),
                cosine,
                clip_norm=settings.clip_norm,
            )
            for name, module, learning_rate in (
                ("generator", generator, settings.generator_lr),
                ("student", tapped_student, settings.student_lr),
            )
        }
        self.transfer = ZeroShotTransfer(
            self.engines["generator"],
            self.engines["student"],
            tapped_teacher,
            gap=belief_gap(
                config.loss.divergence, temperature=config.loss.temperature, reduction=config.loss.reduction
            ),
            beta=config.loss.beta,
            attention=config.loss.attention,
            generator_steps=config.transfer.generator_steps,
            student_steps=config.transfer.student_steps,
            pseudo_batch=config.transfer.pseudo_batch,
            generator_step_statistics=config.transfer.generator_step_statistics == "update",
        )

    def step(self, iteration: int) -> Metrics:
        return self.transfer.step(lambda draw: self.noise(iteration, draw))

    def noise(self, iteration: int, draw: int) -> Tensor:
        """This worker's slice [B, z_dim] of the global noise of `(seed, iteration, draw)`."""
        size = self._config.batch_size
        rng = stream(self._config.seed, Purpose.NOISE, iteration, draw)
        z = normal(rng, size, self._config.generator.z_dim)[self._world.part(size)]
        return torch.from_numpy(z).to(self._world.device)

    def picture(self, path: Path | None) -> bool:
        """Figure 3: the same noise through the generator as it is now."""
        count = self._config.tracking.images
        if count == 0:
            return False
        rng = stream(self._config.seed, Purpose.FIGURES)
        z = torch.from_numpy(normal(rng, count, self._config.generator.z_dim)).to(self._world.device)
        # A copy in training mode: batch statistics as in training, and nothing of the run is touched.
        with torch.no_grad():
            images = copy.deepcopy(self.engines["generator"].raw)(z)
        if path is not None:
            save_grid(images, path)
        return True


def cosine_decay(iteration: int, iterations: int) -> float:
    """Learning-rate factor from 1 to 0 over the run (section 4.1)."""
    return (1 + math.cos(math.pi * iteration / iterations)) / 2


def _synchronised(network: nn.Module, config: Config, world: World) -> nn.Module:
    """With `batch_norm: sync`, statistics of the global batch; it works on CUDA only."""
    if config.engine.batch_norm == "local" or world.size == 1:
        return network
    if world.device.type != "cuda":
        raise ConfigError("engine.batch_norm", "sync", f"needs CUDA, this worker has {world.device}; use local")
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)
