"""Zero-shot transfer, put together from configuration, networks, engines and the algorithm."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.generator_terms import GeneratorTerms
from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.algorithms.transfer import ZeroShotTransfer
from zskt_dist.config import Config
from zskt_dist.models import ImageShape, TappedNetwork
from zskt_dist.runtime.engines import new_engine
from zskt_dist.runtime.held_out import HeldOut
from zskt_dist.runtime.networks import new_generator, new_network, tap_pair
from zskt_dist.runtime.pictures import save_grid
from zskt_dist.runtime.world import World
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tracking.base import Row


class ZeroShotTask:
    """Algorithm 1: needs a teacher and the shape of its images, and never a real image.

    Args:
        snapshots: Folder for the generator at several moments of the run; None: they are kept in memory only.

    Raises:
        ConfigError: the attention maps of teacher and student do not pair.
    """

    phase = "student"

    def __init__(
        self,
        config: Config,
        teacher: nn.Module,
        image_shape: ImageShape,
        num_classes: int,
        world: World,
        snapshots: Path | None = None,
    ) -> None:
        self._config, self._world = config, world
        self.iterations = config.iterations
        self.weight = world.weight(config.batch_size)
        student = new_network(config, "student", image_shape, num_classes).to(world.device)
        generator = new_generator(config, image_shape).to(world.device)
        tapped_teacher, tapped_student = tap_pair(config, teacher, student, image_shape)
        cosine = partial(cosine_decay, iterations=self.iterations)
        settings = config.optimizer
        self.engines = {
            name: new_engine(
                config,
                world,
                module,
                partial(torch.optim.Adam, lr=learning_rate, fused=True),
                cosine,
                batch_size=config.batch_size,
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
            terms=_generator_terms(config, tapped_teacher),
            micro_batch=config.engine.micro_batch,
        )
        self.held_out = HeldOut(config, self.engines["generator"].whole, teacher, image_shape, world, snapshots)

    def step(self, iteration: int) -> Metrics:
        metrics = self.transfer.step(self.noise(iteration))
        self.held_out.after(iteration + 1)
        return metrics

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        with self.engines["student"].whole() as tapped:
            yield tapped.get_submodule("network")

    def judge(self, network: nn.Module, iteration: int) -> Row:
        return self.held_out.judge(network, iteration)

    def noise(self, iteration: int) -> "IterationNoise":
        return IterationNoise(self._config, self._world, iteration)

    def picture(self, path: Path | None) -> bool:
        """Figure 3: the same noise through the generator as it is now."""
        count = self._config.tracking.images
        if count == 0:
            return False
        rng = stream(self._config.seed, Purpose.FIGURES)
        z = torch.from_numpy(normal(rng, count, self._config.generator.z_dim)).to(self._world.device)
        # A copy in training mode: batch statistics as in training, and nothing of the run is touched.
        with torch.no_grad(), self.engines["generator"].whole() as generator:
            images = copy.deepcopy(generator)(z)
        if path is not None:
            save_grid(images, path)
        return True


class IterationNoise:
    """This worker's slice of the global noise of `(seed, iteration, draw)`."""

    def __init__(self, config: Config, world: World, iteration: int) -> None:
        self._config, self._world, self._iteration = config, world, iteration

    def __call__(self, draw: int) -> Tensor:
        """z, [B, z_dim]."""
        return self._slice(Purpose.NOISE, draw, self._config.generator.z_dim)

    def like(self, x: Tensor, draw: int) -> Tensor:
        """Standard normal of the shape and type of x."""
        return self._slice(Purpose.IMAGE_NOISE, draw, *x.shape[1:]).to(x.dtype)

    def _slice(self, purpose: Purpose, draw: int, *shape: int) -> Tensor:
        size = self._config.batch_size
        rng = stream(self._config.seed, purpose, self._iteration, draw)
        return torch.from_numpy(normal(rng, size, *shape)[self._world.part(size)]).to(self._world.device)


def cosine_decay(iteration: int, iterations: int) -> float:
    """Learning-rate factor from 1 to 0 over the run (section 4.1)."""
    return (1 + math.cos(math.pi * iteration / iterations)) / 2


def _generator_terms(config: Config, teacher: TappedNetwork) -> GeneratorTerms | None:
    settings = config.generator_terms
    if not settings.active:
        return None
    return GeneratorTerms(
        teacher,
        teacher_entropy=settings.teacher_entropy,
        student_entropy=settings.student_entropy,
        consistency=settings.consistency,
        diversity=settings.diversity,
        augmentation=settings.augmentation,
        strength=settings.augmentation_strength,
    )
