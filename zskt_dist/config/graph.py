"""A graph of experiments: commands in order, each with settings, and the report they end in."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from zskt_dist import ray_job
from zskt_dist.config.fields import Section
from zskt_dist.config.load import load_config, read_model, words_of
from zskt_dist.config.schema import Config
from zskt_dist.config.shipped import beside, locate

Settings = dict[str, Any]
"""Dotted keys to values, as on the command line."""


class Step(Section):
    """One command, once for each combination of `each`."""

    command: Literal["train", "pretrain", "distill", "finetune"]
    config: str
    """YAML configuration, relative to the graph's folder, or the name of a shipped one."""
    set: Settings = Field(default_factory=dict)
    """Settings on top of the configuration."""
    each: dict[str, list[Any]] = Field(default_factory=dict)
    """Dotted keys to lists of values: all combinations are run."""
    evaluate: Settings | None = None
    """Settings of `evaluate`, which follows the run; null: no evaluation."""


class Graph(Section):
    """A YAML file for `python -m zskt_dist.reproduce`."""

    title: str
    report: str
    """Folder of the report, relative to the current one."""
    set: Settings = Field(default_factory=dict)
    """Settings on top of every step's."""
    steps: Annotated[list[Step], Field(min_length=1)]


@dataclass(frozen=True)
class Task:
    """One run of a graph, with everything it takes to start it."""

    command: str
    arguments: list[str]
    """Arguments of the command line."""
    config: Config
    evaluate: list[str] | None
    """Arguments of `evaluate` after the run directory; None: no evaluation."""


def load_graph(path: Path, overrides: list[str]) -> tuple[Graph, list[Task]]:
    """The graph and its runs in order, all checked.

    Args:
        overrides: `dotted.key=value` on top of every step.

    Raises:
        UserError: the file is missing or no graph; ConfigError: a step's configuration cannot work.
    """
    path = locate(path)
    graph = read_model(path, Graph)
    graph = graph.model_copy(update={"report": ray_job.lasting(graph.report, "report")})
    return graph, [task for step in graph.steps for task in _tasks(graph, step, path, overrides)]


def _tasks(graph: Graph, step: Step, path: Path, overrides: list[str]) -> Iterator[Task]:
    config = str(beside(path, step.config))
    for values in itertools.product(*step.each.values()):
        settings = graph.set | step.set | dict(zip(step.each, values, strict=True))
        words = [*words_of(settings), *overrides]
        evaluate = None if step.evaluate is None else words_of(step.evaluate)
        yield Task(step.command, ["--config", config, *words], load_config(config, words), evaluate)
