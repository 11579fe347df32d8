"""Zero-shot transfer by inversion of the teacher: rounds of synthesis, and a student that learns from all their images.

One iteration is one student step. Before the first step of a round, the workers make its images together, and each gets
them all. What an image is depends on the seed and its number, and not on the number of workers.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.inversion import Batch, Inverter, Weights, draw_batch, most_jitter, round_starts
from zskt_dist.algorithms.losses import distillation_gap
from zskt_dist.algorithms.protocols import Ask, Metrics
from zskt_dist.algorithms.statistics import Moments, StatisticsGap
from zskt_dist.config import Config
from zskt_dist.data import Standardise, as_bytes
from zskt_dist.data.images import sha256_of_pixels
from zskt_dist.data.pool import Pool, PoolFiles, image_bytes
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.world import World
from zskt_dist.errors import NO_SUCH_FILE, ConfigError
from zskt_dist.evaluation.image_sources import ImageSource
from zskt_dist.models import ImageShape, Statistics, TappedNetwork, count_parameters
from zskt_dist.networks.building import check_gradients, new_generator, new_network
from zskt_dist.speed import choose_fast_paths, fold_batch_norm, inversion_gflop
from zskt_dist.streams import Purpose, stream
from zskt_dist.tasks.base import Context, Lines, State, Tick, Training
from zskt_dist.tasks.engines import released
from zskt_dist.tasks.matching import MatchingTraining
from zskt_dist.tasks.stages import SEED_IMAGES, Stage
from zskt_dist.tracking.images import save_image_grid

log = logging.getLogger(__name__)

_MIB = 2**20
_SEED_PART = 1024
WITHOUT_STATISTICS = (
    "the teacher has no normalisation layer with running statistics, so images are made from classes and gap alone; "
    "method=belief_matching needs no such layers"
)


def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
    config, inversion, adam = stage.config, stage.config.inversion, stage.config.optimizer
    lines = []
    if image_shape:
        with torch.device("meta"):
            size = count_parameters(new_generator(config, image_shape))
        lines.append(("generator", f"{size:,} parameters, z of {config.generator.z_dim}"))
    if inversion.seed_images is not None:
        if not Path(inversion.seed_images).exists():
            raise ConfigError(SEED_IMAGES, inversion.seed_images, NO_SUCH_FILE)
        lines.append(("seed images", f"{inversion.seed_images}: not data-free"))
    gap = "no gap" if inversion.gap == "none" else f"{inversion.gap_weight:g} {inversion.gap} gap"
    return [
        *lines,
        (
            "inversion",
            f"{inversion.rounds} rounds of {inversion.images} images after {inversion.warm_up} batches to warm up, "
            f"{inversion.steps} generator steps each; {inversion.rounds * inversion.images_of_round:,} kept",
        ),
        (
            "loss",
            f"{inversion.statistics:g} statistics + labels, from {inversion.labels:g} on, + {gap}; "
            f"student: KL at T = {inversion.temperature:g}",
        ),
        (
            "optimizer",
            f"Adam, generator {inversion.learning_rate:g}, student {adam.student_lr:g}, cosine to 0, clipped at "
            f"{adam.clip_norm:g}, {config.iterations:,} student steps of {config.batch_size}",
        ),
    ]


def start(context: Context) -> Training:
    config, inputs, teacher = context.config, context.inputs, context.teacher
    assert teacher is not None
    if context.world.is_main and not StatisticsGap(teacher).layers:
        log.warning("%s", WITHOUT_STATISTICS)
    parts, workers = config.inversion.parts, context.world.size
    if context.world.is_main and workers > parts:
        log.warning("of %d workers %d make images: inversion.parts=%d gives each a part", workers, parts, workers)
    student = new_network(config, "student", inputs.image_shape, inputs.num_classes)
    check_gradients(config, teacher=teacher, student=student)
    return InversionTraining(
        config,
        teacher,
        student,
        inputs.image_shape,
        inputs.num_classes,
        inputs.mean_std,
        context.world,
        folder=context.directory.pool,
        seed=seed_images(config, inputs.image_shape, context.world),
        further=context.further_sources,
        tick=context.tick,
    )


def seed_images(config: Config, image_shape: ImageShape, world: World) -> Tensor | None:
    """The images that the user gives, uint8 [N, C, H, W], the same on all workers; None: there are none."""
    location = config.inversion.seed_images
    if location is None:
        return None
    from zskt_dist.data.unlabelled import (
        read_unlabelled,  # it imports pyarrow, which `zskt_dist.transfer` can do without
    )

    return world.from_main(partial(read_unlabelled, SEED_IMAGES, location, image_shape))


class InversionTraining(MatchingTraining):
    """Needs a teacher, a student, and the shape and normalisation of their images, and never a real image.

    Args:
        teacher: Frozen, in eval mode, on the worker's device.
        student: In training mode; it is moved to the worker's device and trained in place.
        statistics: Mean and standard deviation of the teacher's images.
        folder: Where rank 0 keeps the pool; None: in memory only.
        seed: uint8 [N, C, H, W] on the CPU, with which the pool starts; None: without.
        further: Sources of images for the label-free scores of the student, the yardstick among them.
        tick: Told how far synthesis is, as it may take long.
    """

    def __init__(
        self,
        config: Config,
        teacher: nn.Module,
        student: nn.Module,
        image_shape: ImageShape,
        num_classes: int,
        statistics: Statistics,
        world: World,
        *,
        folder: Path | None = None,
        seed: Tensor | None = None,
        further: Sequence[ImageSource] = (),
        tick: Tick | None = None,
    ) -> None:
        self._shape, self._classes, self._statistics = image_shape, num_classes, statistics
        self._tick = tick or (lambda phase, done, total: None)
        student.to(world.device)
        work = partial(inversion_gflop, config, new_generator(config, image_shape), teacher, student, image_shape)
        chosen = choose_fast_paths(config, world.device, lambda: work() / world.size, world.size)
        gap = distillation_gap(config.inversion.temperature)
        super().__init__(
            config,
            world,
            student,
            image_shape,
            chosen,
            gap=gap,
            teacher=teacher,
            further=further,
            statistics=statistics,
        )
        self._asked = TappedNetwork(fold_batch_norm(teacher)[0] if chosen.folded_teacher else teacher)
        chosen.apply(self._asked)
        self.inverter = self._inverter(teacher)
        self._starts = round_starts(config.iterations, config.inversion.rounds, config.inversion.spread)
        self._files = PoolFiles(folder)
        self._digests: list[str] = []
        self._metrics: Metrics = {}
        self.pool = self._pool(0 if seed is None else len(seed))
        if seed is not None:
            self._begin_with(seed)

    def _inverter(self, teacher: nn.Module) -> Inverter:
        config, inversion, world = self._config, self._config.inversion, self._world
        generator = new_generator(config, self._shape, self._statistics).to(world.device)
        replace(self.fast_paths, compile=False).apply(generator)
        parts = max(inversion.parts, math.ceil(inversion.images / (config.engine.micro_batch or inversion.images)))
        own = range(min(parts, inversion.images))[world.rank :: world.size]
        return Inverter(
            generator,
            torch.optim.Adam(generator.parameters(), lr=inversion.learning_rate, betas=(0.5, 0.999), fused=True),
            {part: StatisticsGap(teacher, inversion.momentum) for part in own},
            min(parts, inversion.images),
            kept=inversion.kept,
            gap=inversion.gap,
            weights=Weights(inversion.statistics, inversion.labels, inversion.gap_weight, inversion.label_loss),
            add_up=world.sum_all if world.size > 1 else None,
        )

    def _pool(self, seeds: int) -> Pool:
        config, inversion, world = self._config, self._config.inversion, self._world
        return Pool(
            Standardise(*self._statistics, world.device),
            config.batch_size,
            config.seed,
            world.device,
            world.part(config.batch_size),
            views=inversion.views,
            margin=max(self._shape[1:]) // 8 if inversion.shift is None else inversion.shift,
            flip=inversion.flip,
            darken=inversion.darken,
            size=seeds + inversion.rounds * inversion.images_of_round,
            capacity=int(inversion.pool_mib * _MIB),
        )

    def _begin_with(self, seed: Tensor) -> None:
        inversion = self._config.inversion
        needed = len(seed) * image_bytes(self._shape, self._classes, inversion.views) / _MIB
        if needed > inversion.pool_mib:
            problem = f"has {len(seed):,} images, for which the pool has no room"
            remedy = f"inversion.pool_mib={math.ceil(needed)} or more, or give fewer"
            raise ConfigError(SEED_IMAGES, inversion.seed_images, f"{problem}; {remedy}")
        self.seed_images = {"images": len(seed), "sha256": sha256_of_pixels(seed)}
        for part in seed.split(_SEED_PART):
            self.pool.add(part, self.ask)
            self._tick("seed images", len(self.pool), len(seed))

    def step(self, iteration: int) -> Metrics:
        for number in range(len(self._digests), self._begun(iteration)):
            self._synthesise(number)
        return self.learn(iteration, *self.pool(iteration)) | self._metrics

    def _begun(self, iteration: int) -> int:
        """Number of rounds that begin before the student step with that number, or with it."""
        return sum(first <= iteration for first in self._starts)

    @torch.no_grad()
    def ask(self, x: Tensor) -> Tensor:
        """The teacher's logits [B, C], of which each worker finds a share; all call it together with the same x."""
        world, most = self._world, self._config.engine.micro_batch or self._config.batch_size
        share = x.tensor_split(world.size)[world.rank]
        answers = [self._asked(part).logits.cpu() for part in share.split(most) if len(part)]
        return torch.cat([part for found in world.gather(answers) for part in found]).to(world.device)

    def _synthesise(self, number: int) -> None:
        """A round of synthesis: its images go into the pool of every worker, and into a file."""
        inversion = self._config.inversion
        with self.frozen_student() as student:
            warm_up = inversion.warm_up if number == 0 else 0
            for batch in range(1, warm_up + 1):
                self.inverter.make(self.draw(number, batch), student)
                self._tick("first images", batch, warm_up)
            made = self.inverter.make(self.draw(number, 0), student)
        own = {
            part: (as_bytes(images, self._statistics).cpu(), {name: value.item() for name, value in metrics.items()})
            for part, (images, metrics) in made.items()
        }
        parts, metrics = zip(*self._world.gather_parts(own).values(), strict=True)
        images = torch.cat(parts)
        self._digests.append(self._world.from_main(partial(self._files.write, number, images)))
        self.pool.add(images, self.ask)
        means = {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}
        self._metrics = self._on_device(means)

    def _on_device(self, metrics: Mapping[str, float]) -> Metrics:
        return {name: torch.tensor(value, device=self._world.device) for name, value in metrics.items()}

    @contextmanager
    def frozen_student(self) -> Iterator[Ask]:
        """The student with the workers' average statistics, in eval mode."""
        with self.engine.frozen(), self.engine.whole() as network, averaged_statistics(network, self._world):
            yield lambda x: network(x).logits

    def draw(self, number: int, batch: int) -> Batch:
        """What a batch of a round shall be."""
        config, inversion, device = self._config, self._config.inversion, self._world.device
        rng = stream(config.seed, Purpose.SYNTHESIS, number, batch)
        drawn = draw_batch(
            rng,
            config.generator.z_dim,
            self._classes,
            images=inversion.images,
            steps=inversion.steps,
            parts=self.inverter.parts,
            jitter=most_jitter(self._shape) if inversion.jitter is None else inversion.jitter,
        )
        return drawn.to(device)

    def state(self) -> State:
        inverter = self.inverter
        seen = {part: _on_cpu(teacher.seen) for part, teacher in inverter.teachers.items()}
        return {
            "generator": inverter.generator.state_dict(),
            "optimizer": inverter.optimizer.state_dict()["state"],
            "label_weight": inverter.label_weight,
            "seen": self._world.gather_parts(seen),
            "pool": self._digests,
            "seed": self.seed_images,
            "metrics": {name: value.item() for name, value in self._metrics.items()},
        }

    def load(self, state: State) -> None:
        if state["seed"] != self.seed_images:
            problem = "does not hold the images that the run began with; restore them, or --fresh"
            raise ConfigError(SEED_IMAGES, self._config.inversion.seed_images, problem)
        inverter, device = self.inverter, self._world.device
        inverter.generator.load_state_dict(state["generator"])
        options = inverter.optimizer.state_dict()["param_groups"]
        inverter.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": options})
        inverter.label_weight = state["label_weight"].to(device)
        for part, teacher in inverter.teachers.items():
            teacher.seen = [(mean.to(device), variance.to(device)) for mean, variance in state["seen"][part]]
        self._digests, self._metrics = list(state["pool"]), self._on_device(state["metrics"])
        for number, sha256 in enumerate(self._digests):
            self.pool.add(self._world.from_main(partial(self._files.read, number, sha256)), self.ask)

    def release(self) -> nn.Module:
        """The student without the hooks of the training, which must be over."""
        return released(self.engine.raw)

    def picture(self, path: Path | None) -> bool:
        """The newest images of the pool."""
        count = self._config.tracking.images
        if count and path is not None:
            save_image_grid(self.pool.newest(count), path)
        return count > 0


def _on_cpu(moments: Sequence[Moments]) -> list[Moments]:
    """So that other workers, which get them, need no device of that number."""
    return [(mean.cpu(), variance.cpu()) for mean, variance in moments]
