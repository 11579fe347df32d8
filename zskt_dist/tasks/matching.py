"""What the tasks share whose student learns a teacher's answers to images that are there already."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from zskt_dist.algorithms.losses import BeliefGap
from zskt_dist.algorithms.matching import Matching
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.estimates import Answer, estimate
from zskt_dist.evaluation.image_sources import ImageSource, normal_noise
from zskt_dist.evaluation.yardstick import agreements
from zskt_dist.models import ImageShape, Statistics, TappedNetwork
from zskt_dist.networks.building import may_not_use_all, seed_layers, with_checkpointing
from zskt_dist.speed import FastPaths, RecordedTraining
from zskt_dist.tasks.base import PlainTraining
from zskt_dist.tasks.engines import adam_engine
from zskt_dist.tracking.base import Row


class MatchingTraining(PlainTraining):
    """A student with its engine, and its steps, recorded where that is possible.

    Args:
        student: In training mode, on the worker's device; it is trained in place.
        gap: The loss, of the logits [B, C] of student and teacher.
        teacher: Network that the trained student is compared with; None: no comparison.
        further: Sources of images for this comparison besides normal noise.
        statistics: Mean and standard deviation of the images.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        student: nn.Module,
        image_shape: ImageShape,
        fast_paths: FastPaths,
        *,
        gap: BeliefGap,
        teacher: nn.Module | None,
        further: Sequence[ImageSource],
        statistics: Statistics,
    ) -> None:
        self._config, self._world, self._teacher = config, world, teacher
        self._sources = [normal_noise(image_shape, world.device, statistics), *further]
        self.fast_paths = fast_paths
        with_checkpointing(config, student)
        unused = may_not_use_all(student, image_shape, world)
        tapped = TappedNetwork(student)
        fast_paths.apply(tapped)
        rate = config.optimizer.student_lr
        engine = adam_engine(config, world, tapped, rate, fast_paths, find_unused_parameters=unused)
        super().__init__("student", "student", engine, config.iterations)
        self.matching = Matching(engine, gap=gap, micro_batch=config.engine.micro_batch)
        self._recorded: RecordedTraining | None = None
        if fast_paths.cuda_graphs:
            self._recorded = RecordedTraining(self.matching, required=config.speed.cuda_graphs is True)

    @property
    def speed(self) -> str:
        return str(replace(self.fast_paths, cuda_graphs=self._recorded is not None and self._recorded.works))

    def learn(self, iteration: int, x: Tensor, logits: Tensor) -> Metrics:
        """A step on this worker's images [B, C, H, W] and the teacher's logits [B, classes]."""
        seed_layers(self._config.seed, self._world, iteration)
        return (self._recorded or self.matching).step(x, logits)

    def judge(self, network: nn.Module, iteration: int) -> Row:
        if self._teacher is None:
            return {}
        return agreements(self._config, self._sources, network, self._teacher, self._world)

    def estimate(self, network: nn.Module, iteration: int | None = None) -> Answer | None:
        if self._teacher is None:
            return None
        return estimate(self._config, network, self._teacher, self._sources, self._world)
