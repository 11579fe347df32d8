"""Learning from pseudo-data that `synthesize` has made, put together: no generator, no forward pass of a teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.matching import Matching
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.data.pseudo import PseudoBatches, PseudoData
from zskt_dist.distributed.world import World
from zskt_dist.engine.building import new_engine
from zskt_dist.models import TappedNetwork
from zskt_dist.networks.building import may_not_use_all, new_network, seed_layers, with_checkpointing
from zskt_dist.networks.inputs import Inputs
from zskt_dist.speed import RecordedTraining, choose_fast_paths, rate_on, training_gflop
from zskt_dist.tasks.transfer import cosine_decay
from zskt_dist.tracking.base import Row


class PseudoDataTask:
    """Student steps of Algorithm 1, one an iteration, on batches of the folder `config.pseudo_data`.

    Args:
        inputs: The pseudo-data has to be of this shape, these classes and this normalisation.

    Raises:
        ConfigError: the folder is missing, damaged, or does not fit.
    """

    phase = "student"
    attention = None

    def __init__(self, config: Config, inputs: Inputs, world: World) -> None:
        assert config.pseudo_data is not None
        data = PseudoData.open(config.pseudo_data)
        data.check(inputs.image_shape, inputs.num_classes, inputs.mean_std)
        self._config, self._world = config, world
        self.iterations = config.iterations
        self.weight = world.weight(config.batch_size)
        student = new_network(config, "student", inputs.image_shape, inputs.num_classes).to(world.device)
        work = partial(training_gflop, config.batch_size, student, inputs.image_shape)
        fast_paths = choose_fast_paths(config, world.device, lambda: self.iterations * work() / world.size, world.size)
        # These two are of networks that are not there.
        self.fast_paths = replace(fast_paths, folded_teacher=False, low_resolution=False)
        with_checkpointing(config, student)
        unused = may_not_use_all(student, inputs.image_shape, world)
        tapped = TappedNetwork(student)
        self.fast_paths.apply(tapped)
        rate, recorded = config.optimizer.student_lr, self.fast_paths.cuda_graphs
        self._engine = new_engine(
            config,
            world,
            tapped,
            partial(
                torch.optim.Adam,
                lr=rate_on(world.device, rate) if recorded else rate,
                fused=True,
                capturable=recorded,
            ),
            partial(cosine_decay, iterations=self.iterations),
            batch_size=config.batch_size,
            clip_norm=config.optimizer.clip_norm,
            bfloat16=self.fast_paths.autocast is not None,
            find_unused_parameters=unused,
        )
        self.engines = {"student": self._engine}
        loss = config.loss
        gap = belief_gap(loss.divergence, temperature=loss.temperature, reduction=loss.reduction)
        self.matching = Matching(self._engine, gap=gap, micro_batch=config.engine.micro_batch)
        self._recorded: RecordedTraining | None = None
        if recorded:
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

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        with self._engine.whole() as tapped:
            yield tapped.get_submodule("network")

    def judge(self, network: nn.Module, iteration: int) -> Row:
        return {}

    def picture(self, path: Path | None) -> bool:
        return False
