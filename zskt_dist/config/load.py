"""Reading and printing configurations."""

import collections
import copy
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from zskt_dist import ray_job
from zskt_dist.config.execution import speed_preset
from zskt_dist.config.explain import explain, first_problem
from zskt_dist.config.schema import Config, flatten
from zskt_dist.config.shipped import locate
from zskt_dist.errors import ConfigError, DamagedFileError, UserError, one_line

Tree = dict[str, Any]
T = TypeVar("T", bound=BaseModel)

# YAML 1.1 reads `1e-3` as text and `010` as eight; in YAML 1.2 the one is a number. The other is text here, so that
# `name: 010` keeps its zero, and `iterations: 010` is refused.
_INT = ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][\d_]*)$"), list("-+0123456789"))
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


_UNUSED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int")


class _Loader(yaml.SafeLoader):
    """Decimal numbers as in YAML 1.2, and neither dates nor octal, binary or base-60 numbers: no key takes one."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _UNUSED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as numbers."""


_MOST_VALUES = 100_000
"""More than any configuration has, with the values that aliases repeat."""
_MOST_CHARACTERS = 500_000
_NAMES = ("name", "experiment")
_Loader.add_implicit_resolver(*_INT)
_Loader.add_implicit_resolver(*_FLOAT)
_Dumper.add_implicit_resolver(*_FLOAT)


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read `path` (None: all defaults), apply `dotted.key=value` overrides, validate.

    In a Ray job the launcher is Ray where neither names one, and a relative `runs_dir` lies where it lasts.

    Raises:
        UserError: the file is missing or not YAML, or an override is not `key=value`.
        ConfigError: a key is unknown, or its value has the wrong type or range.
    """
    tree = {} if path is None else read_yaml(Path(path))
    if ray_job.in_job() and isinstance(launch := tree.setdefault("launch", {}), dict):
        launch.setdefault("kind", "ray")
    config = _overridden(tree, overrides)
    return config.model_copy(update={"runs_dir": ray_job.lasting(config.runs_dir, "runs_dir")})


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with `dotted.key=value` on top; raises the same errors as `load_config`."""
    return _overridden(config.model_dump(mode="json"), overrides)


def _overridden(tree: Tree, overrides: Sequence[str]) -> Config:
    for override, following in itertools.zip_longest(overrides, overrides[1:]):
        if following is not None and "=" not in override + following and is_key(override):
            raise UserError(f"{override} {following}: settings are written key=value: {override}={following}")
        assign(tree, override)
    return parse_config(tree)


def is_key(word: str) -> bool:
    """True for the dotted key of a setting."""
    return any(word == key for key, _ in flatten(Config()))


def config_of(values: Mapping[str, Any]) -> Config:
    """The defaults with `{"dotted.key": value}` on top; raises the same errors as `load_config`."""
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
    """Validate a nested mapping; raises ConfigError for the first problem, with notes of the others."""
    try:
        # JSON's types are YAML's, and in strict mode only JSON arrays may become tuples.
        return Config.model_validate_json(json.dumps(tree, default=_plain))
    except ValidationError as error:
        raise explain(error) from None


def _plain(value: Any) -> Any:
    """Numbers and lists of NumPy and torch as Python's, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def dump_yaml(config: Config) -> str:
    """The whole configuration, every default written out; `load_config` reads it back to an equal one."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=120)


def dump_value(value: Any) -> str:
    """One value as YAML on one line, as it stands behind a key."""
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def config_of_yaml(text: str) -> Config:
    """The configuration that a YAML text means; raises the errors of `parse_config`, and ValueError for other texts."""
    return parse_config(_parse(text) or {})


def read_config(path: Path) -> Config:
    """The configuration in a file of a run; raises UserError where there is none, or it is damaged."""
    try:
        return parse_config(_parse(_text(path)) or {})
    except (OSError, UserError, yaml.YAMLError, ValueError, TypeError) as error:
        raise DamagedFileError(
            f"{path} is damaged ({one_line(error)}); restore it, or start over with --fresh"
        ) from None


def read_yaml(path: Path) -> Tree:
    """The YAML mapping in a file or a shipped configuration; raises UserError where there is none."""
    path = locate(path)
    try:
        tree = _parse(_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise UserError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"--config {path}: expected a mapping of keys, got {type(tree).__name__}")
    return tree


def read_model(path: Path, model: type[T], overrides: Sequence[str] = ()) -> T:
    """A YAML file that describes several runs, with `key=value` on top; raises UserError where it is none."""
    tree = read_yaml(path)
    for override in overrides:
        assign(tree, override)
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise first_problem(locate(path), error, model.model_fields) from None


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """`key=value`, as on the command line."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _parse_value(key: str, text: str) -> Any:
    try:
        value = _parse(text) if text else None
    except (yaml.YAMLError, ValueError, TypeError):
        raise ConfigError(key, text[:80], "not valid YAML; quote it if it is meant as text") from None
    # Of a name that YAML reads as a number, `1e5`, every letter counts.
    return text.strip() if key.strip() in _NAMES and isinstance(value, int | float) else value


def _text(path: Path) -> str:
    """No more of a file than `_parse` takes, and one character."""
    with path.open(encoding="utf-8") as file:
        return file.read(_MOST_CHARACTERS + 1)


def _parse(text: str) -> Any:
    """What a YAML text means, in JSON's types.

    Raises:
        ValueError: it is too large or too deep, contains itself, or has a key twice.
        yaml.YAMLError, TypeError: it is no such text.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"it has more than {_MOST_CHARACTERS:,} characters")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if (values := _count(node, {})) > _MOST_VALUES:
            raise ValueError(f"its aliases stand for {values:,} values, and {_MOST_VALUES:,} are the most")
        value = loader.construct_document(node)
        json.dumps(value)
        return value
    except RecursionError:
        raise ValueError("it is nested too deep, or contains itself") from None
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node, those of an alias each time that it stands somewhere; known: nodes that were counted."""
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            keys = collections.Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if twice := next((key for key, count in keys.items() if count > 1), None):
                raise ValueError(f"it has the key {twice} twice")
            parts = list(itertools.chain.from_iterable(node.value))
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def _assign(tree: Tree, key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for depth, section in enumerate(sections):
        branch = tree.setdefault(section, {})
        if section == "speed" and depth == 0:  # a preset, with one key set on top
            branch = tree[section] = speed_preset(branch)
        if not isinstance(branch, dict):
            raise ConfigError(key, value, f"{'.'.join(sections[: depth + 1])} is a value, not a section")
        tree = branch
    tree[leaf] = value
