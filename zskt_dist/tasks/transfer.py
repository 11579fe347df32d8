"""Zero-shot transfer by belief matching, built from configuration, networks, engines and the algorithm."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.belief_matching import BeliefMatching
from zskt_dist.algorithms.generator_terms import GeneratorTerms
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.data import on_device
from zskt_dist.distributed.world import World
from zskt_dist.engine import Engine
from zskt_dist.evaluation.estimates import Answer, estimate
from zskt_dist.evaluation.held_out import HeldOut
from zskt_dist.evaluation.image_sources import ImageSource
from zskt_dist.evaluation.yardstick import agreements
from zskt_dist.models import ImageShape, Statistics, TappedNetwork, count_parameters, input_scale
from zskt_dist.networks.attention import pair_layers, tap_pair
from zskt_dist.networks.building import (
    check_gradients,
    may_not_use_all,
    new_generator,
    new_network,
    seed_layers,
    with_checkpointing,
)
from zskt_dist.runs.result import SeedImages
from zskt_dist.speed import FastPaths, RecordedTransfer, choose_fast_paths, fold_batch_norm, iteration_gflop
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tasks.base import Context, Lines, State, Training
from zskt_dist.tasks.engines import adam_engine, released
from zskt_dist.tasks.gap import check_gap, configured_gap, describe_gap
from zskt_dist.tasks.stages import Stage
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.images import save_image_grid


def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
    config, transfer, loss, adam = stage.config, stage.config.transfer, stage.config.loss, stage.config.optimizer
    lines = []
    if image_shape:
        with torch.device("meta"):
            size = count_parameters(new_generator(config, image_shape))
        lines.append(("generator", f"{size:,} parameters, z of {config.generator.z_dim}"))
    return [
        *lines,
        (
            "transfer",
            f"N = {config.iterations:,} iterations of n_G = {transfer.generator_steps}, "
            f"n_S = {transfer.student_steps}, batch {config.batch_size}, images {transfer.pseudo_batch}",
        ),
        ("loss", f"{describe_gap(config)}, beta = {loss.beta:g} ({loss.attention})"),
        (
            "optimizer",
            f"Adam, cosine to 0, generator {adam.generator_lr:g}, "
            f"student {adam.student_lr:g}, clipped at {adam.clip_norm:g}",
        ),
    ]


def start(context: Context) -> Training:
    config, inputs, teacher = context.config, context.inputs, context.teacher
    assert teacher is not None
    student = new_network(config, "student", inputs.image_shape, inputs.num_classes)
    check_gradients(config, teacher=teacher, student=student)
    check_gap(config, inputs.num_classes, context.world.device)
    snapshots, further = context.directory.snapshots, context.further_sources
    return TransferTraining(
        config,
        teacher,
        student,
        inputs.image_shape,
        context.world,
        snapshots,
        further=further,
        statistics=inputs.statistics,  # as stated: what is measured is no range, whatever it is
    )


class TransferTraining:
    """Algorithm 1: needs a teacher, a student and the shape of their images, and never a real image.

    Args:
        teacher: Frozen, in eval mode, on the worker's device.
        student: In training mode; it is moved to the worker's device and trained in place.
        snapshots: Folder for the generator at several moments of the run; None: they are kept in memory only.
        fast_paths: How iterations are computed; None: as configured.
        further: More sources of images for the label-free scores of the student, the yardstick among them.
        statistics: Mean and standard deviation of the teacher's images; None: they are normalised.

    Raises:
        ConfigError: the layers whose attention maps are to be compared do not exist, or do not pair.
    """

    phase = "student"

    def __init__(
        self,
        config: Config,
        teacher: nn.Module,
        student: nn.Module,
        image_shape: ImageShape,
        world: World,
        snapshots: Path | None = None,
        fast_paths: FastPaths | None = None,
        further: Sequence[ImageSource] = (),
        statistics: Statistics | None = None,
    ) -> None:
        self._config, self._world, self._further = config, world, further
        self.iterations = config.iterations
        self.weight = world.weight(config.batch_size)
        student.to(world.device)
        generator = new_generator(config, image_shape).to(world.device)
        if scale := input_scale(statistics):
            generator.begin_at(*scale)
        work = partial(iteration_gflop, config, generator, teacher, student, image_shape)
        self.fast_paths = fast_paths or choose_fast_paths(
            config, world.device, lambda: self.iterations * work() / world.size, world.size
        )
        self.seed_images: SeedImages | None = None
        self.attention = pair_layers(config, teacher, student, image_shape)
        if self.fast_paths.folded_teacher:
            frozen, _ = fold_batch_norm(teacher, keep=self.attention.teacher)
        else:
            frozen = teacher
        with_checkpointing(config, frozen, student, generator)
        unused = may_not_use_all(student, image_shape, world)
        tapped_teacher, tapped_student = tap_pair(config, frozen, student, self.attention)
        self.fast_paths.apply(generator, tapped_teacher, tapped_student)
        self.engines = self._engines(generator, tapped_student, unused)
        self.transfer = self._transfer(tapped_teacher)
        self._recorded: RecordedTransfer | None = None
        if self.fast_paths.cuda_graphs:
            self._recorded = RecordedTransfer(self.transfer, required=config.speed.cuda_graphs is True)
        self._step = self._recorded.step if self._recorded else self.transfer.step
        whole = self.engines["generator"].whole
        self.held_out = HeldOut(config, whole, teacher, image_shape, world, snapshots, statistics)

    def _engines(self, generator: nn.Module, student: nn.Module, unused: bool) -> dict[str, Engine]:
        """Engines of both trained networks; `unused`: some of the student's parameters may not affect its logits."""
        config = self._config
        rates = config.optimizer
        return {
            "generator": adam_engine(config, self._world, generator, rates.generator_lr, self.fast_paths),
            "student": adam_engine(
                config, self._world, student, rates.student_lr, self.fast_paths, find_unused_parameters=unused
            ),
        }

    def _transfer(self, teacher: TappedNetwork) -> BeliefMatching:
        config, loss = self._config, self._config.loss
        return BeliefMatching(
            self.engines["generator"],
            self.engines["student"],
            teacher,
            gap=configured_gap(config),
            beta=loss.beta if self.attention.pairs else 0.0,
            attention=loss.attention,
            generator_steps=config.transfer.generator_steps,
            student_steps=config.transfer.student_steps,
            pseudo_batch=config.transfer.pseudo_batch,
            generator_step_statistics=config.transfer.generator_step_statistics == "update",
            terms=_generator_terms(config, teacher),
            micro_batch=config.engine.micro_batch,
        )

    @property
    def speed(self) -> str:
        return str(replace(self.fast_paths, cuda_graphs=self._recorded is not None and self._recorded.works))

    def step(self, iteration: int) -> Metrics:
        seed_layers(self._config.seed, self._world, iteration)
        metrics = self._step(self.noise(iteration))
        self.held_out.after(iteration + 1)
        return metrics

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        with self.engines["student"].whole() as tapped:
            yield tapped.get_submodule("network")

    def release(self) -> nn.Module:
        """The student without the hooks of the training, which must be over."""
        return released(self.engines["student"].raw)

    def state(self) -> State:
        return {}  # all noise comes from the seed and the iteration

    def load(self, state: State) -> None:
        pass

    def judge(self, network: nn.Module, iteration: int) -> Row:
        teacher = self.held_out.teacher
        agreement = agreements(self._config, self._further, network, teacher, self._world)
        return agreement | self.held_out.judge(network, iteration)

    def estimate(self, network: nn.Module, iteration: int | None = None) -> Answer | None:
        """The content of `estimates.json`; `iteration`: number of iterations done, where the run was ended early."""
        done = self.iterations if iteration is None else iteration
        sources = [*self.held_out.sources(done), *self._further]
        return estimate(self._config, network, self.held_out.teacher, sources, self._world)

    def noise(self, iteration: int) -> "IterationNoise":
        return IterationNoise(self._config, self._world, iteration)

    def picture(self, path: Path | None) -> bool:
        """Figure 3: the same noise through the generator as it is now."""
        count = self._config.tracking.images
        if count == 0:
            return False
        rng = stream(self._config.seed, Purpose.FIGURES)
        z = torch.from_numpy(normal(rng, count, self._config.generator.z_dim)).to(self._world.device)
        # A copy in training mode, on as many images as training normalises together; the run stays as it is.
        with torch.no_grad(), self.engines["generator"].whole() as generator:
            images = torch.cat([part.cpu() for part in map(copy.deepcopy(generator), self.transfer.micro_batches(z))])
        if path is not None:
            save_image_grid(images, path)
        return True


class IterationNoise:
    """This worker's slice of the global noise of `(seed, iteration, draw)`."""

    def __init__(self, config: Config, world: World, iteration: int) -> None:
        self._config, self._world, self._iteration = config, world, iteration
        self._images: tuple[int, Tensor] | None = None

    def __call__(self, draw: int) -> Tensor:
        """z, [B, z_dim]."""
        return self._slice(Purpose.NOISE, draw, self._config.generator.z_dim)

    def like(self, x: Tensor, draw: int) -> Tensor:
        """Standard normal of the type of x, [B, C, H, W]; B is this worker's, also where x is a micro-batch."""
        if self._images is None or self._images[0] != draw:  # every micro-batch asks for the same
            self._images = draw, self._slice(Purpose.IMAGE_NOISE, draw, *x.shape[1:]).to(x.dtype)
        return self._images[1]

    def _slice(self, purpose: Purpose, draw: int, *shape: int) -> Tensor:
        size = self._config.batch_size
        rng = stream(self._config.seed, purpose, self._iteration, draw)
        return on_device(normal(rng, size, *shape)[self._world.part(size)], self._world.device)


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
