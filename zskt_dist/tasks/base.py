"""What the loop asks of a training, and what a worker hands to a task.

The module of a task has two functions: `describe(stage, image_shape) -> Lines` puts its training into words for the
plan, and `start(context) -> Training` makes what the loop runs. One that trains nothing has `run(context, stop)`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.data import ImageDataset
from zskt_dist.distributed.world import World
from zskt_dist.engine import Engine
from zskt_dist.engine.building import placed_teacher
from zskt_dist.errors import ConfigError
from zskt_dist.evaluation.estimates import Answer
from zskt_dist.evaluation.image_sources import ImageSource, uniform_noise
from zskt_dist.evaluation.yardstick import Yardstick, find_or_make, yardsticks
from zskt_dist.networks.attention import Attention
from zskt_dist.networks.building import read_network
from zskt_dist.networks.inputs import Declaration, Inputs, declared_by_file, declared_by_pseudo_data
from zskt_dist.networks.weights import WeightsFile
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import is_file
from zskt_dist.runs.result import SeedImages
from zskt_dist.tasks.stages import Stage, user_files
from zskt_dist.tracking.base import Row

Lines = list[tuple[str, str]]
"""Topics, each with a line of text."""
Tick = Callable[[str, int, int], object]
"""Told what is going on, how far it is, and how far it goes."""
State = dict[str, Any]
Files = dict[str, WeightsFile]
"""Files of weights that have been read already, by location; building a network from one removes it here."""


class Training(Protocol):
    """What one iteration is, and which networks it trains."""

    phase: str
    """What is going on, in words for people."""
    iterations: int
    weight: float
    """Weight of this worker's metrics in the mean over the workers: its share of the batch, relative to an even one."""

    @property
    def speed(self) -> str:
        """The fast paths that iterations take, in words for people."""

    def trained(self) -> AbstractContextManager[nn.Module]:
        """The trained network, [B, C, H, W] to logits, to be evaluated or saved; all workers enter together."""

    @property
    def engines(self) -> Mapping[str, Engine]:
        """Engines of the trained networks by name; a checkpoint holds their states."""

    @property
    def attention(self) -> Attention | None:
        """Layers compared with the teacher's; None: the algorithm compares none."""

    @property
    def seed_images(self) -> SeedImages | None:
        """Images of the user from which the network learns; None: it learns without data, or from a data set."""

    def step(self, iteration: int) -> Metrics:
        """One iteration."""

    def state(self) -> State:
        """What a checkpoint holds besides the engines; all workers call it together."""

    def load(self, state: State) -> None:
        """Restores a `state`; all workers call it together."""

    def judge(self, network: nn.Module, iteration: int) -> Row:
        """Scores of the trained network that need no labels, on all ranks together; {} where there are none."""

    def estimate(self, network: nn.Module) -> Answer | None:
        """The content of `estimates.json` after the last iteration, on all ranks together; None: there is none."""

    def picture(self, path: Path | None) -> bool:
        """Draws the current state, on all ranks together, and writes it as PNG where there is a path.

        Returns False where there is nothing to draw.
        """


class PlainTraining:
    """The parts of `Training` that most tasks share: one engine, whose network is tapped, and no estimates."""

    attention: Attention | None = None
    seed_images: SeedImages | None = None

    def __init__(self, phase: str, role: str, engine: Engine, iterations: int) -> None:
        self.phase, self.iterations, self.weight = phase, iterations, engine.weight
        self.engine = engine
        self.engines = {role: engine}

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        with self.engine.whole() as tapped:
            yield tapped.get_submodule("network")

    def state(self) -> State:
        return {}

    def load(self, state: State) -> None:
        pass

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
        directory: The stage's run directory, which the workers have locked.
        open_inputs: Returns what networks read and answer in this job; all workers call it together.
        tick: Told by all workers how far a step is that takes long; it raises Interrupted where a stop is requested.
    """

    stage: Stage
    directory: RunDirectory
    world: World
    open_inputs: Callable[[], Inputs]
    files: Files = field(default_factory=dict)
    tick: Tick = lambda phase, done, total: None

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
        """The teacher, frozen, in eval mode, placed as `engine.teacher` demands; None where the stage has none."""
        if "teacher" not in self.stage.inputs:
            return None
        return placed_teacher(self.config, self.network("teacher").eval().requires_grad_(False))

    @cached_property
    def yardstick(self) -> Yardstick | None:
        """The teacher's yardstick; None where there is none, or it is not wanted. All workers ask for it together."""
        sharded = self.config.engine.teacher == "sharded"  # no worker has its weights, or can ask it alone
        if self.teacher is None or sharded or not self.config.evaluation.yardstick:
            return None
        # In bfloat16 it would be another teacher, with another yardstick.
        whole = self.config.engine.teacher == "replicated"
        teacher = self.teacher if whole else self.network("teacher").eval().requires_grad_(False)
        inputs, folder = self.inputs, yardsticks(self.directory)
        shape, classes, statistics = inputs.image_shape, inputs.num_classes, inputs.mean_std
        return find_or_make(folder, teacher, shape, classes, statistics, self.world, self.tick)

    @cached_property
    def further_sources(self) -> list[ImageSource]:
        """Images for estimates besides those of generators and normal noise, the yardstick first."""
        device, standardise = self.world.device, self.inputs.standardise(self.world.device)
        yardstick = [self.yardstick.source(standardise, device)] if self.yardstick else []
        return [*yardstick, uniform_noise(self.inputs.image_shape, standardise, device)]

    def network(self, role: str) -> nn.Module:
        """A network that the stage begins with, on the worker's device; all workers call it together."""
        location = self.stage.inputs[role]
        key = next((need.key for need in self.stage.task.needs if need.role == role), f"{role} weights")
        source = self.files.pop(location, location)
        inputs = self.inputs
        network = read_network(
            self.config, role, inputs.image_shape, inputs.num_classes, source, key, self.world, inputs.mean_std
        )
        return network.to(self.world.device)


def declarations(stages: Sequence[Stage], files: Files) -> list[Declaration]:
    """What the user's files declare about the images and classes of a job's networks.

    Raises:
        ConfigError: a file is damaged.
    """
    found = [
        declared_by_file(files.get(location) or WeightsFile.open(location, key))
        for key, location in user_files(stages[-1]).items()
        if location in files or is_file(location, key)  # reading a missing file raises a clear error later
    ]
    folders = {stage.config.pseudo_data for stage in stages if "pseudo_data" in stage.reads}
    return [*found, *(declared_by_pseudo_data(folder) for folder in folders if folder)]


def check_images(stages: Sequence[Stage]) -> None:
    """Raises ConfigError where real images are needed and there are none."""
    goal = stages[-1]
    if goal.config.data.name != "none":
        return
    if goal.task.needs_test_images:
        problem = f"{goal.task.command} measures on labelled test images; name them: data.name=… data.root=…"
        raise ConfigError("data.name", "none", problem)
    if goal.task.real_images:
        problem = f"{goal.task.command} learns from labelled images; only train needs none"
        raise ConfigError("data.name", "none", problem)
    if any(stage.task.real_images for stage in stages):
        problem = "with data.name=none there is nothing to train a teacher on; give a trained one"
        raise ConfigError("teacher.checkpoint", None, problem)
