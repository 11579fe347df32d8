"""What the loop asks of a training, and what a worker hands to a task.

The module of a task has two functions: `describe(stage, image_shape) -> Lines` puts its training into words for the
plan, and `start(context) -> Training` makes what the loop runs. One that trains nothing has `run(context, stop)`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from torch import nn

from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.data import ImageDataset
from zskt_dist.distributed.world import World
from zskt_dist.engine import Engine
from zskt_dist.engine.building import placed_teacher
from zskt_dist.errors import ConfigError
from zskt_dist.evaluation.estimates import Answer
from zskt_dist.networks.attention import Attention
from zskt_dist.networks.building import read_network
from zskt_dist.networks.inputs import Declaration, Inputs, declared_by_file, declared_by_pseudo_data
from zskt_dist.networks.weights import WeightsFile
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import is_file
from zskt_dist.tasks.stages import Stage, user_files
from zskt_dist.tracking.base import Row

Lines = list[tuple[str, str]]
"""Topics and what is to be said of them."""
Files = dict[str, WeightsFile]
"""Files of weights that have been read already, by location; whoever builds a network from one takes it out."""


class Training(Protocol):
    """What one iteration is, and which networks it trains."""

    phase: str
    """For people: what is going on."""
    iterations: int
    weight: float
    """Of this worker's metrics in the mean over the workers: its share of the batch, relative to an even one."""

    @property
    def speed(self) -> str:
        """For people: the fast paths that iterations take."""

    def trained(self) -> AbstractContextManager[nn.Module]:
        """The trained network, [B, C, H, W] to logits: what is evaluated and taken home; all workers enter together."""

    @property
    def engines(self) -> Mapping[str, Engine]:
        """Trained networks by name, with all that has to be saved to go on."""

    @property
    def attention(self) -> Attention | None:
        """Layers compared with the teacher's; None: the algorithm compares none."""

    def step(self, iteration: int) -> Metrics:
        """One iteration."""

    def judge(self, network: nn.Module, iteration: int) -> Row:
        """Scores of the trained network that need no labels, on all ranks together; {} where there are none."""

    def estimate(self, network: nn.Module) -> Answer | None:
        """What `estimates.json` has of it after the last iteration, on all ranks together; None: nothing."""

    def picture(self, path: Path | None) -> bool:
        """Draws the current state, on all ranks together, and writes it as PNG where there is a path.

        False where there is nothing to show.
        """


class PlainTraining:
    """The parts of `Training` that most have in common: one engine, whose network is tapped, and no estimates."""

    attention: Attention | None = None

    def __init__(self, phase: str, role: str, engine: Engine, iterations: int) -> None:
        self.phase, self.iterations, self.weight = phase, iterations, engine.weight
        self.engine = engine
        self.engines = {role: engine}

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        with self.engine.whole() as tapped:
            yield tapped.get_submodule("network")

    def judge(self, network: nn.Module, iteration: int) -> Row:
        return {}

    def estimate(self, network: nn.Module) -> Answer | None:
        return None

    def picture(self, path: Path | None) -> bool:
        return False


@dataclass
class Context:
    """A stage on one worker.

    Attributes:
        directory: Of the stage's run, which the workers hold.
        open_inputs: What networks read and answer in this job; all workers call it together.
    """

    stage: Stage
    directory: RunDirectory
    world: World
    open_inputs: Callable[[], Inputs]
    files: Files = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return self.stage.config

    @cached_property
    def inputs(self) -> Inputs:
        return self.open_inputs()

    @property
    def images(self) -> ImageDataset:
        dataset = self.inputs.dataset
        assert dataset is not None, "tasks that need images are refused without"
        return dataset

    @cached_property
    def teacher(self) -> nn.Module | None:
        """Frozen, in eval mode, where `engine.teacher` wants it; None where the stage has none."""
        if "teacher" not in self.stage.inputs:
            return None
        return placed_teacher(self.config, self.network("teacher").eval().requires_grad_(False))

    def network(self, role: str) -> nn.Module:
        """A network that the stage begins with, on the worker's device; all workers call it together."""
        location = self.stage.inputs[role]
        key = next((need.key for need in self.stage.task.needs if need.role == role), f"{role} weights")
        source = self.files.pop(location, location)
        shape, classes = self.inputs.image_shape, self.inputs.num_classes
        network = read_network(self.config, role, shape, classes, source, key, self.world)
        return network.to(self.world.device)


def declarations(stages: Sequence[Stage], files: Files) -> list[Declaration]:
    """What the user's files declare of the images and classes of the networks of a job.

    Raises:
        ConfigError: one is damaged.
    """
    found = [
        declared_by_file(files.get(location) or WeightsFile.open(location, key))
        for key, location in user_files(stages[-1]).items()
        if location in files or is_file(location, key)  # else: who reads the weights says that they are missing
    ]
    folders = {stage.config.pseudo_data for stage in stages if "pseudo_data" in stage.reads}
    return [*found, *(declared_by_pseudo_data(folder) for folder in folders if folder)]


def check_images(stages: Sequence[Stage]) -> None:
    """Raises ConfigError where real images are needed and there are none."""
    goal = stages[-1]
    if goal.config.data.name != "none":
        return
    if goal.task.needs_test_images:
        problem = f"{goal.task.command} measures on labelled test images; say which: data.name=… data.root=…"
        raise ConfigError("data.name", "none", problem)
    if goal.task.real_images:
        problem = f"{goal.task.command} learns from labelled images; only train needs none"
        raise ConfigError("data.name", "none", problem)
    if any(stage.task.real_images for stage in stages):
        problem = "with data.name=none there is nothing to train a teacher on; give a trained one"
        raise ConfigError("teacher.checkpoint", None, problem)
