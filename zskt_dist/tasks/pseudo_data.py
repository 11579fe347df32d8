"""Learning from the pseudo-data that `synthesize` has made: no generator, and no forward pass of a teacher."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.data.pseudo import PseudoBatches, PseudoData
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError
from zskt_dist.evaluation.image_sources import ImageSource
from zskt_dist.files import describe_size
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network
from zskt_dist.networks.inputs import Inputs
from zskt_dist.speed import choose_fast_paths, training_gflop
from zskt_dist.tasks.base import Context, Lines, Training
from zskt_dist.tasks.gap import check_gap, configured_gap, describe_gap
from zskt_dist.tasks.matching import MatchingTraining
from zskt_dist.tasks.stages import Stage


def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
    config, adam = stage.config, stage.config.optimizer
    rate = f"Adam {adam.student_lr:g}, cosine to 0, clipped at {adam.clip_norm:g}"
    return [
        ("pseudo-data", _in_words(str(config.pseudo_data))),
        ("loss", f"{describe_gap(config)}, no attention term"),
        ("optimizer", f"{rate}, {config.iterations:,} student steps of {config.batch_size}"),
    ]


def start(context: Context) -> Training:
    further = context.further_sources
    return PseudoDataTraining(context.config, context.inputs, context.world, context.teacher, further)


class PseudoDataTraining(MatchingTraining):
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
        shape = inputs.image_shape
        student = new_network(config, "student", shape, inputs.num_classes).to(world.device)
        work = partial(training_gflop, config.batch_size, student, shape)
        chosen = choose_fast_paths(config, world.device, lambda: config.iterations * work() / world.size, world.size)
        own = replace(chosen, folded_teacher=False, low_resolution=False)  # those networks are not there
        check_gap(config, inputs.num_classes, world.device)
        super().__init__(
            config,
            world,
            student,
            shape,
            own,
            gap=configured_gap(config),
            teacher=teacher,
            further=further,
            statistics=inputs.mean_std,
        )
        self.batches = PseudoBatches(
            *data.read(),
            config.batch_size,
            config.seed,
            world.device,
            world.part(config.batch_size),
            channels_last=self.fast_paths.channels_last,
        )

    def step(self, iteration: int) -> Metrics:
        return self.learn(iteration, *self.batches(iteration))


def _in_words(folder: str) -> str:
    try:
        data = PseudoData.open(folder)
    except UserError:
        return folder
    return f"{data.images:,} images, {describe_size(data.nbytes)} in every worker, of {data.folder}"
