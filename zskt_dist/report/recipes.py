"""What a run is an instance of: its recipe, and in what it differs from the recipe it is compared with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zskt_dist.config import Config
from zskt_dist.config.keys import is_under, leaves_of
from zskt_dist.data.sources import KNOWN
from zskt_dist.tasks.registry import TASKS, all_reads

Recipe = dict[str, Any]
"""Dotted keys to JSON values."""

SEED_IMAGES = "inversion.seed_images"
"""Key of images without labels: a run that has them is not data-free."""
ABSENT = object()
"""In place of an option that a recipe lacks, for null is a value."""

TASKS_OF = {
    "teacher": ("pretrain",),
    "scratch": ("scratch",),
    "distill": ("distill",),
    "train": ("transfer", "pseudo_data"),
    "inversion": ("inversion",),
    "finetune": ("finetune",),
}
"""By method: the tasks that it stands for."""
# Where and how often a run is done and measured, and what a group of runs has in common by other means.
_APART = (
    *("seed", "seeds", "experiment", "device", "launch", "evaluation", "transitions"),
    *("data.name", "data.images_per_class", "teacher.arch", "student.arch", "supervised.network"),
)


def recipe_of(config: Config, method: str) -> Recipe:
    """All that can change the result of a method, but for seed, data set, networks, M and the place of the run.

    Values that others stand in for where they are null are written out, so that equal recipes look equal.
    """
    reads = tuple(key for name in TASKS_OF[method] for key in all_reads(TASKS[name]))
    leaves = leaves_of(config, reads)
    if (facts := KNOWN.get(config.data.name)) and config.data.mean is None:
        leaves |= {"data.mean": list(facts.mean), "data.std": list(facts.std)}
    if leaves.get("data.augment") == "auto":
        leaves["data.augment"] = facts.augmentation if facts else "crop"
    # Of Parquet files the folder says which data they are; elsewhere the data set's name does.
    apart = _APART if config.data.name == "parquet" else (*_APART, "data.root")
    kept = {key: value for key, value in leaves.items() if not is_under(key, apart)}
    # Workers change what batch norm sees, unless it is that of the global batch.
    if "launch.workers" in leaves and config.engine.batch_norm != "sync":
        kept["launch.workers"] = leaves["launch.workers"]
    return kept


def changes(recipe: Recipe, reference: Recipe) -> Recipe:
    """What a recipe has other than the reference; `ABSENT` is what only the reference has."""
    mine = {key: recipe.get(key, ABSENT) for key in {**recipe, **reference}}
    return {key: value for key, value in mine.items() if reference.get(key, ABSENT) != value}


def central(recipes: Sequence[Recipe], method: str) -> Recipe:
    """The recipe that differs least from all the others, as what ablations vary does; among equals, the plainest."""
    defaults = recipe_of(Config(), method)

    def place(recipe: Recipe) -> tuple[int, int, str]:
        distance = sum(len(changes(other, recipe)) for other in recipes)
        return distance, len(changes(recipe, defaults)), key_of(recipe)

    return min({key_of(recipe): recipe for recipe in recipes}.values(), key=place)


def key_of(recipe: Recipe) -> str:
    """Equal for equal recipes."""
    return json.dumps(recipe, sort_keys=True)


def words(recipe: Recipe) -> list[str]:
    """As `key=value` of the command line."""
    return [f"{key}={_word(value)}" for key, value in recipe.items()]


def label(different: Recipe) -> str:
    """As in `loss.beta=0, transfer.pseudo_batch=fresh`; of a path the last two parts."""
    paths = ("data.root", "teacher.checkpoint", "finetune.student", SEED_IMAGES)
    # Workers are absent where batch norm is synchronised, which says it.
    told = {k: v for k, v in different.items() if v is not ABSENT or k != "launch.workers"}
    short = {k: str(Path(*Path(v).parts[-2:])) if k in paths and isinstance(v, str) else v for k, v in told.items()}
    return ", ".join(words(short))


def _word(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
