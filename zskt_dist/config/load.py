"""Reading, printing and hashing configurations."""

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from zskt_dist.config.execution import speed_preset
from zskt_dist.config.explain import explain
from zskt_dist.config.schema import Config, flatten
from zskt_dist.config.shipped import locate
from zskt_dist.errors import ConfigError, UserError

Tree = dict[str, Any]

# Where a run's files and records go does not change what it computes.
PLACEMENT_KEYS = ("name", "runs_dir", "tracking", "checkpoint", "launch.max_failures", "data.download")
# What changes no more than the rounding.
SPEED_KEYS = (
    "speed.channels_last",
    "speed.folded_teacher",
    "speed.low_resolution",
    "speed.compile",
    "speed.cuda_graphs",
    "engine.activation_checkpointing",
)
ENGINE_KEYS = ("engine.kind", "engine.zero_stage", "engine.offload_optimizer", "engine.offload_parameters")
# What measures a trained network changes nothing in it.
MEASURE_KEYS = (
    "transitions",
    "evaluation.noise_images",
    "evaluation.held_out_images",
    "evaluation.snapshots",
)
_ZERO_SHOT = ("generator", "generator_terms", "transfer", "optimizer", "batch_size", "iterations", "engine.micro_batch")
# What a command never looks at. So a run is found again by those settings alone that made it.
UNUSED_KEYS = {
    "train": ("data.images_per_class", "supervised.network", "distill", "finetune"),
    "finetune": ("supervised.network", "distill"),
    "distill": (
        "supervised.network",
        "speed.precision",
        "finetune",
        "pseudo_data",
        *_ZERO_SHOT,
        *("loss.divergence", "loss.temperature", "loss.reduction", "loss.beta"),
    ),
    "pretrain": ("teacher", "loss", "distill", "finetune", "pseudo_data", "speed.precision", *_ZERO_SHOT),
}
# And, where a student learns from pseudo-data, its `train`: there is no generator, and nobody's attention.
_UNUSED_WITH_PSEUDO_DATA = (
    *("generator", "generator_terms", "transfer", "optimizer.generator_lr"),
    *("loss.beta", "loss.attention", "loss.attention_layers", "loss.taps", "loss.resize_maps"),
)
# A teacher, if any, is one that the student is compared with.
_UNUSED_WITHOUT_TEACHER = ("teacher", "supervised", "data.augment")
# What may differ when a run that was given a name is continued: also where, on how many workers and by which engine.
CONTINUATION_KEYS = (*PLACEMENT_KEYS, *SPEED_KEYS, *ENGINE_KEYS, "launch")
# What makes a teacher: with which data and recipe it was trained, and not what it is used for.
TEACHER_KEYS = (
    "teacher.arch",
    "teacher.options",
    "data.name",
    "data.root",
    "data.num_classes",
    "data.mean",
    "data.std",
    "data.augment",
    "supervised",
    "engine.batch_norm",
)
# Younger than the first runs and teachers: at their defaults they leave the identity as it was.
YOUNGER_KEYS = ("pseudo_data", "data.image_shape", "data.num_classes", "loss.taps", "loss.resize_maps")


_ABSENT = object()
"""In place of an option that is not given, for null is a value."""

# YAML 1.1 reads `1e-3` as text; here it is a number, as in YAML 1.2.
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class _Loader(yaml.SafeLoader):
    """Numbers as in YAML 1.2, and no dates: no key takes one."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as numbers."""


_Loader.add_implicit_resolver(*_FLOAT)
_Dumper.add_implicit_resolver(*_FLOAT)


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read `path` (None: all defaults), apply `dotted.key=value` overrides, validate.

    Raises:
        UserError: the file is missing or not YAML, or an override is not `key=value`.
        ConfigError: a key is unknown, or its value has the wrong type or range.
    """
    return _overridden({} if path is None else read_yaml(Path(path)), overrides)


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with `dotted.key=value` on top; raises as `load_config`."""
    return _overridden(config.model_dump(mode="json"), overrides)


def _overridden(tree: Tree, overrides: Sequence[str]) -> Config:
    for override in overrides:
        assign(tree, override)
    return parse_config(tree)


def config_of(values: Mapping[str, Any]) -> Config:
    """The defaults with `{"dotted.key": value}` on top; raises as `load_config`."""
    tree: Tree = {}
    for key, value in values.items():
        _assign(tree, key, copy.deepcopy(value))
    return parse_config(tree)


def assign(tree: Tree, override: str) -> None:
    """Puts `dotted.key=value` into a nested mapping.

    Raises:
        UserError: it is not `key=value`; ConfigError: the value is not YAML, or a value stands where a section is.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"{override!r}: expected dotted.key=value, for example loss.beta=0")
    _assign(tree, key.strip(), _parse_value(key, text))


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Validate a nested mapping; raises ConfigError for the first problem, with the count of the others."""
    try:
        # JSON's types are YAML's, and in strict mode only JSON arrays may become tuples.
        return Config.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise explain(error) from None


def dump_yaml(config: Config) -> str:
    """The whole configuration, every default written out; `load_config` reads it back to an equal one."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=120)


def config_hash(config: Config, command: str = "train") -> str:
    """Identity of a command's run: eight hex digits over everything that can change its result."""
    unused = (*PLACEMENT_KEYS, *SPEED_KEYS, *MEASURE_KEYS, *unused_keys(config, command))
    leaves = {key: value for key, value in flatten(config) if not is_under(key, unused)}
    # Where `iterations` is told anyway, a null that it stands in for says as much.
    return _digest(leaves if "iterations" in leaves else leaves | _resolved(config))


def unused_keys(config: Config, command: str) -> tuple[str, ...]:
    """Keys and sections that a command with this configuration never looks at."""
    unused = UNUSED_KEYS[command]
    if command == "train" and config.pseudo_data is not None:
        unused += _UNUSED_WITH_PSEUDO_DATA
        if config.teacher.checkpoint is None:
            unused += _UNUSED_WITHOUT_TEACHER
    return unused


def teacher_hash(config: Config) -> str:
    """Identity of a pretrained teacher: eight hex digits over what made it."""
    leaves = {key: value for key, value in flatten(config) if is_under(key, TEACHER_KEYS)}
    # Any engine makes the same teacher.
    always = {"supervised.network": "teacher", "engine.kind": "ddp", "seed": config.teacher_seed}
    return _digest(leaves | always | _resolved(config))


def _resolved(config: Config) -> dict[str, Any]:
    """Values that others stand in for where they are null."""
    return {"supervised.iterations": config.supervised_iterations}


def _digest(leaves: Mapping[str, Any]) -> str:
    young = {key: value for key, value in flatten(Config()) if is_under(key, YOUNGER_KEYS)}
    told = {key: value for key, value in leaves.items() if key not in young or value != young[key]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]


def differing_keys(before: Config, after: Config, *, exclude: Sequence[str] = CONTINUATION_KEYS) -> list[str]:
    """Dotted keys, other than `exclude`, whose values differ."""
    old, new = _as_computed(before), _as_computed(after)
    differing = [key for key in {**new, **old} if old.get(key, _ABSENT) != new.get(key, _ABSENT)]
    return [key for key in differing if not is_under(key, exclude)]


def _as_computed(config: Config) -> dict[str, Any]:
    """Every dotted key; a teacher in shards computes what a whole one does."""
    leaves = dict(flatten(config))
    return leaves | {"engine.teacher": leaves["engine.teacher"].replace("sharded", "replicated")}


def is_under(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted key is one of `prefixes`, or lies in a section that is."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def read_yaml(path: Path) -> Tree:
    """A YAML mapping, of a file or a shipped configuration; raises UserError where it is missing or something else."""
    path = locate(path)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        json.dumps(tree)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise UserError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"--config {path}: expected a mapping of keys, got {type(tree).__name__}")
    return tree


def _parse_value(key: str, text: str) -> Any:
    try:
        value = yaml.load(text, Loader=_Loader) if text else None
        json.dumps(value)  # an anchor can make a value contain itself
    except (yaml.YAMLError, ValueError, TypeError):
        raise ConfigError(key, text, "not valid YAML; quote it if it is meant as text") from None
    return value


def _assign(tree: Tree, key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for depth, section in enumerate(sections):
        branch = tree.setdefault(section, {})
        if section == "speed" and depth == 0:  # a preset, of which a key is to differ
            branch = tree[section] = speed_preset(branch)
        if not isinstance(branch, dict):
            raise ConfigError(key, value, f"{'.'.join(sections[: depth + 1])} is a value, not a section")
        tree = branch
    tree[leaf] = value
