"""What a sweep tries: a YAML file with a search space over dotted configuration keys, and its trials.

This module imports neither torch nor Ray.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from zskt_dist.config import Config, load_config
from zskt_dist.config.fields import Identifier, NonNegative, Positive, Purpose, Section, Seed
from zskt_dist.config.keys import IDENTITY, is_under, keys_for
from zskt_dist.config.load import read_model, words_of
from zskt_dist.config.shipped import beside, locate
from zskt_dist.errors import ConfigError
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import absolute
from zskt_dist.tasks.registry import TASKS, all_reads
from zskt_dist.tasks.stages import identity, pinned, run_directory

_OF_ALL = ("experiment", "runs_dir", "launch.kind")
"""Where the trials of a sweep lie and run together."""

Settings = dict[str, Any]
"""Dotted keys to values, as on the command line."""


class Axis(Section):
    """Values of one key (or of several at once), by exactly one of these rules."""

    grid: Annotated[list[Any], Field(min_length=1)] | None = None
    """Every value, crossed with the other grids."""
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    """One of these at random."""
    uniform: tuple[float, float] | None = None
    """A random number between two."""
    loguniform: tuple[float, float] | None = None
    """A random number between two positive ones, its logarithm uniform."""

    @model_validator(mode="after")
    def _one_rule(self) -> "Axis":
        rules = self.model_dump(exclude_none=True)
        if len(rules) != 1:
            raise ValueError("give exactly one of grid, choice, uniform, loguniform")
        for rule in ("uniform", "loguniform"):
            low, high = rules.get(rule, (1, 2))
            if not low < high or (rule == "loguniform" and low <= 0):
                raise ValueError(f"{rule} needs [low, high] with {'0 < ' * (rule == 'loguniform')}low < high")
        return self

    def draw(self, rng: np.random.Generator) -> list[Any]:
        """All values of a grid, or one of the others: a number to six digits, for people read it."""
        if self.grid is not None:
            return self.grid
        if self.choice is not None:
            return [self.choice[rng.integers(len(self.choice))]]
        (low, high), share = self.uniform or self.loguniform or (0, 1), rng.random()
        number = low + (high - low) * share if self.uniform else low * (high / low) ** share
        return [float(f"{number:.6g}")]


class Sweep(Section):
    """A YAML file for `zskt sweep`."""

    title: str
    name: Identifier
    """Of the sweep: its folder, and its run in MLflow."""
    config: str
    """YAML configuration of all trials, relative to this file's folder, or the name of a shipped one."""
    set: Settings = Field(default_factory=dict)
    """Settings on top of it."""
    space: Annotated[dict[str, Axis], Field(min_length=1)]
    """Dotted keys to rules; several keys with commas between take a list of values each time."""
    samples: Positive = 1
    """How often the random rules are drawn; each draw meets every combination of the grids."""
    seed: Seed = 0
    """Of the random rules."""
    scheduler: Literal["all", "asha"] = "all"
    """all: every trial runs to its end; asha: the worse ones are stopped early (arXiv:1810.05934)."""
    grace: Positive = 100
    """asha: iterations every trial gets."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """asha: of so many trials one goes on at each rung."""
    select_by: Literal["label_free_score", "accuracy"] = "label_free_score"
    """label_free_score: agreement on the teacher's yardstick, else on pooled pseudo-images, else the trial's own score;
    accuracy looks at test labels, which a zero-shot setting does not have."""
    pool_images: NonNegative = 2000
    """Pseudo-images of all trials' generators, and noise images, on which all students are compared; 0: none."""
    evaluate: Settings | None = None
    """Settings of `evaluate`, which follows each trial (it measures the MTE); null: no evaluation."""
    concurrent: Positive | None = None
    """Most trials at a time; null: as many as the cluster has room for."""


@dataclass
class Trial:
    """One run of a sweep, and what has become of it: after `evaluate`, what `trials.json` keeps."""

    number: int
    settings: Settings
    """What distinguishes it, by single dotted keys."""
    config: Config
    evaluate: list[str] | None
    """Of the command line of `evaluate`; None: no evaluation."""
    state: str = "waiting"
    """waiting, running, finished, stopped (early, by the scheduler), interrupted, failed."""
    iteration: int = 0
    score: float | None = None
    """What it is ranked by without labels, as it was at the last evaluation."""
    message: str = ""
    starts: int = 0
    """How often it has been started."""
    evaluated: list[str] | None = None
    """The settings of `evaluate` with which it was finished."""

    @cached_property
    def hash(self) -> str:
        return identity("train", self.config)

    @cached_property
    def run(self) -> RunDirectory:
        return RunDirectory(absolute(run_directory(self.config, "train").location))

    @property
    def label(self) -> str:
        """For people: `loss.beta=250 transfer.student_steps=5`."""
        return " ".join(f"{key}={_short(value)}" for key, value in self.settings.items())

    @property
    def ended(self) -> bool:
        """True if a repeated command leaves it alone; a finished run that is to be evaluated otherwise it does not."""
        return self.state == "stopped" or (self.state == "finished" and self.evaluate in (None, self.evaluated))


def load_sweep(path: Path, overrides: Sequence[str]) -> tuple[Sweep, list[Trial]]:
    """The sweep and its trials, all checked, each configuration once.

    Args:
        overrides: `dotted.key=value` on top of every trial; `sweep.key=value` changes the sweep itself.

    Raises:
        UserError: the file is missing or no sweep; ConfigError: a trial's configuration cannot work.
    """
    own = [text.removeprefix("sweep.") for text in overrides if text.startswith("sweep.")]
    others = [text for text in overrides if not text.startswith("sweep.")]
    path = locate(path)
    sweep = read_model(path, Sweep, own)
    _check_keys(sweep, others)
    trials: dict[str, Trial] = {}
    for settings in _draw(sweep):
        words = [*words_of(sweep.set), *others, *words_of(settings)]
        config = pinned("train", load_config(beside(path, sweep.config), [*words, "launch.kind=ray"]))
        evaluate = None if sweep.evaluate is None else words_of(sweep.evaluate)
        _check_images(sweep, config)
        trial = Trial(len(trials), settings, config, evaluate)
        _check_apart(trials.setdefault(trial.hash, trial), trial)
    if sweep.scheduler == "asha":
        for trial in trials.values():
            _check_stopping(sweep, trial.config)
    return sweep, list(trials.values())


def _check_keys(sweep: Sweep, overrides: Sequence[str]) -> None:
    """Each setting is given in one place, and those that would give trials one run are given nowhere."""
    swept = [key for keys in sweep.space for key in _split(keys)]
    given = [*sweep.set, *(text.partition("=")[0] for text in overrides)]
    for key in (*swept, *given):
        if key in ("name", "seeds"):
            raise ConfigError(key, "…", "is no setting of a trial: every trial is a run of its own; sweep over `seed`")
        if key in swept and key in given:
            raise ConfigError(key, "…", "is what the sweep varies; change the sweep's space")
    for key in swept:
        _check_swept(sweep, key)
        if swept.count(key) > 1:
            raise ConfigError(key, "…", "is in the search space twice")


def _check_swept(sweep: Sweep, key: str) -> None:
    """Values of a key that is swept must make different runs, which can be compared."""
    if is_under(key, _OF_ALL):
        raise ConfigError(key, "…", "is the same for all trials of a sweep; take it out of the space")
    if is_under(key, keys_for(Purpose.MEASUREMENT)):
        raise ConfigError(key, "…", "measures a run and does not change it; set it in `set` or `evaluate`")
    if not _decides(key):
        raise ConfigError(key, "…", "does not change what a trial computes: all its values are the same run")
    if key == "iterations" and sweep.scheduler == "asha":
        raise ConfigError(
            key, "…", "cannot be swept with sweep.scheduler=asha: the learning rates of longer runs fall later"
        )


def _decides(key: str) -> bool:
    """The key, or one in the section of that name, changes what `train` makes; unknown keys are refused elsewhere."""
    reads = [read for task in TASKS.values() if task.command == "train" for read in all_reads(task)]
    known = [each for each in keys_for(*Purpose) if is_under(each, (key,)) or is_under(key, (each,))]
    used = [each for each in known if is_under(each, reads) and is_under(each, keys_for(*IDENTITY))]
    return bool(used) or not known


def _check_apart(first: Trial, trial: Trial) -> None:
    """Draws of one run must be equal: its row in the table would name the settings of one and stand for both."""
    for key, value in trial.settings.items():
        if value != first.settings[key]:
            raise ConfigError(key, value, f"makes the same run as {key}={first.settings[key]!r} does; leave one out")


def _check_images(sweep: Sweep, config: Config) -> None:
    """There must be test images where trials are to be measured on some."""
    if config.data.name == "none" and sweep.select_by == "accuracy":
        raise ConfigError("sweep.select_by", "accuracy", "needs test images, and data.name=none has none")
    if config.data.name == "none" and sweep.evaluate is not None and "data.name" not in sweep.evaluate:
        raise ConfigError("sweep.evaluate", sweep.evaluate, "needs test images: give data.name and data.root there")


def _check_stopping(sweep: Sweep, config: Config) -> None:
    """ASHA must have something to go by, at the first rung and at each one after it."""
    if sweep.grace > config.iterations:
        raise ConfigError("sweep.grace", sweep.grace, f"is more than a trial's {config.iterations} iterations")
    every = config.evaluation.every
    if not 0 < every <= sweep.grace:
        problem = f"asha judges trials from iteration {sweep.grace} on (sweep.grace) by their evaluations; use 1 to "
        raise ConfigError("evaluation.every", every, f"{problem}{sweep.grace}")
    if sweep.select_by == "label_free_score":
        _check_ranking(config)


def _check_ranking(config: Config) -> None:
    """Trials must tell what they are ranked by without labels; that a teacher has no batch norm is only known later."""
    needs = {
        "evaluation.yardstick=true": config.evaluation.yardstick,
        "engine.teacher=replicated": config.engine.teacher != "sharded",
        "teacher.checkpoint": config.pseudo_data is None or config.teacher.checkpoint,
    }
    lacking = [need for need, there in needs.items() if not there]
    generators = config.method == "belief_matching" and config.pseudo_data is None
    if lacking and not (generators and config.evaluation.held_out_images):
        remedy = " and ".join(lacking) + ", or evaluation.held_out_images=256" * generators
        problem = f"asha ranks trials by the yardstick, or by images of their generators; use {remedy}"
        raise ConfigError("evaluation.yardstick", config.evaluation.yardstick, problem)


def _draw(sweep: Sweep) -> Iterator[Settings]:
    """The settings of every trial; the same for the same sweep."""
    rng = np.random.default_rng(sweep.seed)
    random_rules = any(axis.grid is None for axis in sweep.space.values())
    for _ in range(sweep.samples if random_rules else 1):
        # Drawn before the grids are gone through: the seeds of one setting differ in nothing else.
        drawn = [axis.draw(rng) for axis in sweep.space.values()]
        for values in itertools.product(*drawn):
            yield _by_single_keys(dict(zip(sweep.space, values, strict=True)))


def _by_single_keys(spec: Mapping[str, Any]) -> Settings:
    """{"a, b": [1, 2]} becomes {"a": 1, "b": 2}."""
    settings: Settings = {}
    for keys, value in spec.items():
        names = _split(keys)
        values = list(value) if len(names) > 1 else [value]
        if len(values) != len(names):
            raise ConfigError(keys, value, f"needs a list of {len(names)} values each time")
        settings |= zip(names, values, strict=True)
    return settings


def _split(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",")]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
