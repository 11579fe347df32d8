"""The purpose of each key, read from the types of the schema, and so which keys identify a run."""

import hashlib
import json
import os.path
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from zskt_dist.config.fields import Purpose
from zskt_dist.config.inputs import is_brought
from zskt_dist.config.schema import Config, flatten

Leaves = dict[str, Any]
"""Dotted keys to JSON values."""

IDENTITY = (Purpose.RECIPE, Purpose.WORKERS)
"""Keys with these purposes make different runs."""
CONTINUATION = (Purpose.RECIPE, Purpose.MEASUREMENT)
"""Keys with these purposes must stay where a named run is continued."""

_FILES = ("teacher.checkpoint", "finetune.student", "pseudo_data", "inversion.seed_images")
"""Keys that name files and folders of the user's: known by their absolute paths."""
_ABSENT = object()
"""Stands for an option that is not given, because null is a value."""


@cache
def purposes() -> Mapping[str, Purpose]:
    """Purpose of every dotted key; a network's options count as one key."""
    return dict(_purposes(Config, "", Purpose.RECIPE))


def _purposes(section: type[BaseModel], prefix: str, inherited: Purpose) -> Iterator[tuple[str, Purpose]]:
    for name, field in section.model_fields.items():
        purpose = next((each for each in field.metadata if isinstance(each, Purpose)), inherited)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _purposes(field.annotation, f"{prefix}{name}.", purpose)
        else:
            yield prefix + name, purpose


def keys_for(*kinds: Purpose) -> tuple[str, ...]:
    """All keys with one of these purposes."""
    return tuple(key for key, purpose in purposes().items() if purpose in kinds)


def leaves_of(config: Config, reads: Sequence[str]) -> Leaves:
    """Keys under `reads` that make different runs, with their values; a null is replaced by the value it stands for.

    Args:
        reads: Keys and sections.
    """
    return _chosen(_resolved(config), reads, IDENTITY)


def digest(values: Mapping[str, Any]) -> str:
    """Eight hex digits that tell values apart.

    Values at their default are left out, so a new key leaves the identity of older runs as it was. Hence no default
    may ever change its value (tests/config/test_keys.py).
    """
    defaults = _defaults()
    different = {key: value for key, value in values.items() if defaults.get(key, _ABSENT) != value}
    return hashlib.sha256(json.dumps(different, sort_keys=True).encode()).hexdigest()[:8]


def differing_keys(before: Config, after: Config, reads: Sequence[str] = ("",)) -> list[str]:
    """Keys under `reads` whose values differ, where a run that was begun with `before` is continued with `after`."""
    old, new = (
        _chosen(_resolved(config) | {"teacher.seed": _teacher_seed(config)}, reads, CONTINUATION)
        for config in (before, after)
    )
    differing = [key for key in {**new, **old} if old.get(key, _ABSENT) != new.get(key, _ABSENT)]
    if before.supervised.iterations == after.supervised.iterations:  # then `iterations`, its default, does differ
        differing = ["iterations" if key == "supervised.iterations" else key for key in differing]
    return list(dict.fromkeys(differing))


def is_under(key: str, prefixes: Sequence[str]) -> bool:
    """True if a dotted key is one of `prefixes`, or lies in a section that is; "" is the section of all keys."""
    return any(not prefix or key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


@cache
def _defaults() -> Mapping[str, Any]:
    return dict(flatten(Config()))


def _resolved(config: Config) -> Leaves:
    """Every dotted key with the value that decides the result: a sharded teacher counts as a whole one."""
    leaves = dict(flatten(config))
    teacher = leaves["engine.teacher"].replace("sharded", "replicated")
    if config.data.name in ("digits", "none"):  # which read no folder
        leaves["data.root"] = _defaults()["data.root"]
    elif config.data.name == "parquet":  # the user's own images: `data` is another data set in another folder
        leaves["data.root"] = str(Path(leaves["data.root"]).absolute())
    for key in _FILES:
        if leaves[key] is not None:
            leaves[key] = _absolute(leaves[key])
    return leaves | {"engine.teacher": teacher, "supervised.iterations": config.supervised_iterations}


def _absolute(location: str) -> str:
    """One path for each file, however it is written; what is no path stays as it is."""
    return location if "://" in location or is_brought(location) else os.path.normpath(Path(location).absolute())


def _teacher_seed(config: Config) -> int | str:
    """The seed of the teacher, or `run` where each of several seeds has a teacher of its own."""
    return "run" if config.seeds is not None and not isinstance(config.teacher.seed, int) else config.teacher_seed


def _chosen(leaves: Leaves, reads: Sequence[str], kinds: Sequence[Purpose]) -> Leaves:
    known = keys_for(*kinds)
    return {key: value for key, value in leaves.items() if is_under(key, reads) and is_under(key, known)}
