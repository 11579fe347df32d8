"""The settings of a transfer, from its arguments and its `config`, and the method that they mean."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from zskt_dist.algorithms.statistics import StatisticsGap
from zskt_dist.config import Config, config_of
from zskt_dist.config.fields import as_numbers
from zskt_dist.config.keys import is_under
from zskt_dist.config.load import assign
from zskt_dist.errors import ConfigError, UserError

Method = Literal["belief_matching", "inversion"]
Settings = Mapping[str, Any] | Sequence[str]
"""`{"loss.beta": 0}`, `{"loss": {"beta": 0}}`, or as on the command line `["loss.beta=0"]`."""

# Keys that matter for a transfer with given networks and without files; all others belong to the commands.
SETTINGS = (
    *("method", "iterations", "batch_size", "seed", "device", "speed", "transfer", "loss", "generator"),
    *("generator_terms", "inversion", "optimizer", "data.mean", "data.std"),
    *("engine.micro_batch", "engine.activation_checkpointing", "engine.teacher"),
    *("evaluation.every", "evaluation.held_out_images", "evaluation.snapshots", "evaluation.yardstick"),
    *("checkpoint", "tracking.log_every", "teacher.output", "student.output"),
)
ARGUMENTS = {
    "speed": "speed",  # first: its parts may be set on top of it
    "method": "method",
    "input_shape": "data.image_shape",
    "mean": "data.mean",
    "std": "data.std",
    "iterations": "iterations",
    "batch_size": "batch_size",
    "generator_steps": "transfer.generator_steps",
    "student_steps": "transfer.student_steps",
    "pseudo_batch": "transfer.pseudo_batch",
    "beta": "loss.beta",
    "generator_lr": "optimizer.generator_lr",
    "student_lr": "optimizer.student_lr",
    "seed": "seed",
    "device": "device",
    "log_every": "tracking.log_every",
}
"""Arguments of `transfer` that are settings, and the keys of these."""
_IMAGES = ("data.image_shape", "data.mean", "data.std")
"""Settings that the teacher may declare itself: they are checked together with it."""
_OF_ONE_METHOD: Mapping[Method, tuple[str, ...]] = {
    "belief_matching": ("transfer", "loss", "generator_terms", "optimizer.generator_lr", "evaluation.snapshots"),
    "inversion": ("inversion",),
}


def given_settings(arguments: Mapping[str, Any], config: Settings | None) -> dict[str, Any]:
    """Settings by key, from `ARGUMENTS` that are not None and from `config`; those of images as they were written.

    Raises:
        ConfigError: a setting is unknown, impossible, given twice, or has no meaning here; UserError: `config` holds
            something else than settings.
    """
    given = {key: value for name, key in ARGUMENTS.items() if (value := arguments.get(name)) is not None}
    names = {key: name for name, key in ARGUMENTS.items()}
    further = dict(_leaves(_tree(config)))
    config_of({key: value for key, value in further.items() if key not in _IMAGES})  # it has the better messages
    for key, value in further.items():
        if key in given:
            raise ConfigError(key, value, f"is also given as {names[key]}={given[key]!r}; leave one of them out")
        if key not in _IMAGES and not is_under(key, SETTINGS):
            raise ConfigError(key, value, "has no meaning in transfer, which is given its networks and reads no data")
    images = {key: value for key in _IMAGES if (value := further.pop(key, None)) is not None}
    return {**given, **further, **{key: as_numbers(value) for key, value in images.items()}}


def settings_of(given: Mapping[str, Any]) -> Config:
    """The configuration of a transfer, which writes nothing; raises ConfigError for an impossible setting."""
    return config_of({**given, "tracking.images": 0, "tracking.uri": "none"})


def method_of(teacher: nn.Module, given: Mapping[str, Any]) -> Method:
    """The method that is asked for, else the one that the settings are of, else the one that suits the teacher.

    Args:
        given: What the caller has set, by key.

    Raises:
        ConfigError: a setting has no meaning with the method.
    """
    stated = [key for key, value in given.items() if value is not None]
    own = {method: [key for key in stated if is_under(key, keys)] for method, keys in _OF_ONE_METHOD.items()}
    inverts = own["inversion"] or (StatisticsGap(teacher).layers and not own["belief_matching"])
    method: Method = given.get("method") or ("inversion" if inverts else "belief_matching")
    for key in (key for other, keys in own.items() if other != method for key in keys):
        raise ConfigError(key, given[key], f"has no meaning with method={method!r}; leave it out")
    return method


def _tree(config: Settings | None) -> Mapping[str, Any]:
    if config is None or isinstance(config, Mapping):
        return config or {}
    words = [config] if isinstance(config, str) else config
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        kind = type(config).__name__
        raise UserError(
            f'config is of type {kind}; give settings by key, {{"loss.beta": 0}}, or as texts, ["loss.beta=0"]'
        )
    tree: dict[str, Any] = {}
    for word in words:
        assign(tree, word)
    return tree


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields values by dotted key, from nested mappings and from dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
