"""What a teacher is, by its name and weights: how its answers are read, and which method suits it."""

import logging
import time
from typing import Literal, NamedTuple

from torch import nn

from zskt_dist.algorithms.statistics import StatisticsGap
from zskt_dist.config import Config
from zskt_dist.config.inputs import is_brought
from zskt_dist.models import count_parameters, is_own
from zskt_dist.networks.brought import with_digest
from zskt_dist.networks.building import check_gradients, examination_of, new_network, read_network
from zskt_dist.networks.inputs import Inputs, declared_by_file, open_inputs
from zskt_dist.networks.weights import WeightsFile

log = logging.getLogger(__name__)

KEY = "teacher.checkpoint"
Lines = list[tuple[str, str]]


class ExaminedTeacher(NamedTuple):
    """The network of `config.teacher` with its weights if there are any, and what its images are."""

    config: Config
    network: nn.Module
    inputs: Inputs

    @property
    def layers_with_statistics(self) -> int:
        """Number of layers that remember statistics of the training images."""
        return StatisticsGap(self.network).layers

    @property
    def method(self) -> Literal["inversion", "belief_matching"]:
        """The method that suits it: inversion needs layers with running statistics."""
        return "inversion" if self.layers_with_statistics else "belief_matching"

    @property
    def lines(self) -> Lines:
        """Topics, each with a line of text."""
        return [
            ("teacher", _network(self.config, self.network)),
            ("images", _images(self.inputs)),
            ("answers", _answers(self.config, self.network)),
            ("method", _method(self)),
        ]


def look_at(config: Config) -> Lines:
    """Topics, each with a line of text, of the network of `config.teacher`, with its weights if there are any.

    Raises:
        ConfigError: it cannot be built, read or asked, or no student can learn from its answers.
    """
    started = time.perf_counter()
    return [*examined_teacher(config).lines, ("seconds", f"{time.perf_counter() - started:.1f}")]


def examined_teacher(config: Config, *, quiet: bool = False) -> ExaminedTeacher:
    """Builds the teacher, reads its weights and asks it about a few images; raises the errors of `look_at`.

    Args:
        quiet: True if a later reading of its file says what of it is taken.
    """
    location = config.teacher.checkpoint
    file = WeightsFile.open(location, KEY) if location and not is_brought(location) else None
    inputs = open_inputs(config, [declared_by_file(file)] if file else [], needs_train=False)
    shape, classes = inputs.image_shape, inputs.num_classes
    with_digest(config)  # refuses weights that are drawn at random
    if file:
        network = read_network(config, "teacher", shape, classes, file, KEY, statistics=inputs.statistics, quiet=quiet)
    else:
        network = new_network(config, "teacher", shape, classes, inputs.statistics)
    check_gradients(config, teacher=network)
    if (found := examination_of(network)) and found.warning:
        log.warning("the teacher %s", found.warning)
    return ExaminedTeacher(config, network, inputs)


def _network(config: Config, network: nn.Module) -> str:
    location = config.teacher.checkpoint
    weights = "untrained: no --checkpoint" if location is None else f"weights of {location}"
    if is_brought(location):
        weights = "with the weights that it comes with"
    return f"{config.teacher.arch}, {count_parameters(network):,} parameters, {weights}"


def _images(inputs: Inputs) -> str:
    shape = "x".join(map(str, inputs.image_shape))
    mean, std = (list(each) for each in inputs.mean_std)
    guessed = f"; guessed from the name: {', '.join(inputs.guessed)}" if inputs.guessed else ""
    return f"{shape}, {inputs.num_classes:,} classes, mean {mean}, std {std}{guessed}"


def _answers(config: Config, network: nn.Module) -> str:
    found = examination_of(network)
    if found is None:
        assert is_own(config.teacher.arch)
        return "logits"
    return f"{found}; a gradient reaches the images"


def _method(teacher: ExaminedTeacher) -> str:
    if teacher.method == "inversion":
        return f"inversion: {teacher.layers_with_statistics} layers have running statistics"
    return "belief_matching: no layer has running statistics, which inversion needs (docs/inversion.md)"
