"""Learning from the pseudo-data that `synthesize` has made: no generator, and no forward pass of a teacher."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.matching import Matching
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.data.pseudo import PseudoBatches, PseudoData
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError
from zskt_dist.evaluation.estimates import Answer, estimate
from zskt_dist.evaluation.image_sources import ImageSource, normal_noise
from zskt_dist.evaluation.yardstick import agreements
from zskt_dist.files import describe_size
from zskt_dist.models import ImageShape, TappedNetwork
from zskt_dist.networks.building import may_not_use_all, new_network, seed_layers, with_checkpointing
from zskt_dist.networks.inputs import Inputs
from zskt_dist.speed import RecordedTraining, choose_fast_paths, training_gflop
from zskt_dist.tasks.base import Context, Lines, PlainTraining, Training
from zskt_dist.tasks.engines import adam_engine
from zskt_dist.tasks.stages import Stage
from zskt_dist.tracking.base import Row


def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
    config, loss, adam = stage.config, stage.config.loss, stage.config.optimizer
    gap = f"{loss.divergence} at T = {loss.temperature:g} ({loss.reduction})"
    rate = f"Adam {adam.student_lr:g}, cosine to 0, clipped at {adam.clip_norm:g}"
    return [
        ("pseudo-data", _in_words(str(config.pseudo_data))),
        ("loss", f"{gap}, no attention term"),
        ("optimizer", f"{rate}, {config.iterations:,} student steps of {config.batch_size}"),
    ]


def start(context: Context) -> Training:
    further = context.further_sources
    return PseudoDataTraining(context.config, context.inputs, context.world, context.teacher, further)


class PseudoDataTraining(PlainTraining):
    """One student step of Algorithm 1 per iteration, on batches from the folder `config.pseudo_data`.

    Args:
        inputs: Shape, classes and normalisation, which the pseudo-data must share.
        teacher: Network that the trained student is compared with; None: no comparison.
        further: Sources of images for this comparison besides normal noise.

    Raises:
        ConfigError: the folder is missing, damaged, or does not fit.
    """

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        world: World,
        teacher: nn.Module | None = None,
        further: Sequence[ImageSource] = (),
    ) -> None:
        assert config.pseudo_data is not None
        data = PseudoData.open(config.pseudo_data)
        data.check(inputs.image_shape, inputs.num_classes, inputs.mean_std)
        self._config, self._inputs, self._world, self._teacher = config, inputs, world, teacher
        self._further = further
        student = new_network(config, "student", inputs.image_shape, inputs.num_classes).to(world.device)
        work = partial(training_gflop, config.batch_size, student, inputs.image_shape)
        chosen = choose_fast_paths(config, world.device, lambda: config.iterations * work() / world.size, world.size)
        self.fast_paths = replace(chosen, folded_teacher=False, low_resolution=False)  # those networks are not there
        with_checkpointing(config, student)
        unused = may_not_use_all(student, inputs.image_shape, world)
        tapped = TappedNetwork(student)
        self.fast_paths.apply(tapped)
        engine = adam_engine(
            config, world, tapped, config.optimizer.student_lr, self.fast_paths, find_unused_parameters=unused
        )
        super().__init__("student", "student", engine, config.iterations)
        loss = config.loss
        gap = belief_gap(loss.divergence, temperature=loss.temperature, reduction=loss.reduction)
        self.matching = Matching(engine, gap=gap, micro_batch=config.engine.micro_batch)
        self._recorded: RecordedTraining | None = None
        if self.fast_paths.cuda_graphs:
            self._recorded = RecordedTraining(self.matching, required=config.speed.cuda_graphs is True)
        self._step = self._recorded.step if self._recorded else self.matching.step
        self.batches = PseudoBatches(
            *data.read(),
            config.batch_size,
            config.seed,
            world.device,
            world.part(config.batch_size),
            channels_last=self.fast_paths.channels_last,
        )

    @property
    def speed(self) -> str:
        return str(replace(self.fast_paths, cuda_graphs=self._recorded is not None and self._recorded.works))

    def step(self, iteration: int) -> Metrics:
        seed_layers(self._config.seed, self._world, iteration)
        return self._step(*self.batches(iteration))

    def judge(self, network: nn.Module, iteration: int) -> Row:
        if self._teacher is None:
            return {}
        return agreements(self._config, self._further, network, self._teacher, self._world)

    def estimate(self, network: nn.Module) -> Answer | None:
        if self._teacher is None:
            return None
        noise = normal_noise(self._inputs.image_shape, self._world.device)
        return estimate(self._config, network, self._teacher, [noise, *self._further], self._world)


def _in_words(folder: str) -> str:
    try:
        data = PseudoData.open(folder)
    except UserError:
        return folder
    return f"{data.images:,} images, {describe_size(data.nbytes)} in every worker, of {data.folder}"
