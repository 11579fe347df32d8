"""Settings of a transfer: arguments and `config` say the same things, with the defaults of the commands."""

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch

import zskt_dist
from tests.support.transfers import SMALL, TINY, assert_equal, state_of, tiny_pair
from zskt_dist.api.settings import ARGUMENTS, given_settings, settings_of
from zskt_dist.config import Config, flatten
from zskt_dist.config.load import words_of
from zskt_dist.errors import ConfigError

QUICK = TINY | {"evaluation.yardstick": False}  # which takes seconds


def test_defaults_are_those_of_the_configuration() -> None:
    """An argument that is left out is left to the configuration, and the docstring says what that means."""
    defaults = {name: each.default for name, each in inspect.signature(zskt_dist.transfer).parameters.items()}
    assert {name: defaults[name] for name in ARGUMENTS} == dict.fromkeys(ARGUMENTS)
    leaves, settings = dict(flatten(Config())), dict(flatten(settings_of(given_settings(defaults, None))))
    assert {key for key in leaves if leaves[key] != settings[key]} == {"tracking.images", "tracking.uri"}
    documented = inspect.getdoc(zskt_dist.transfer) or ""
    said = {}
    for name, key in ARGUMENTS.items():
        entry = re.search(rf"^    {name}: (.*?)(?=^    \w+: |\n\n)", documented, re.M | re.S)
        assert entry, name
        if found := re.search(r"\(`?([a-z_]+|[\d.,e-]+)`?(?:, as are the next four)?\)\.?", entry[1]):
            said[key] = found[1].replace(",", "")
    numbers = ("iterations", "batch_size", "seed", "tracking.log_every", "loss.beta")
    numbers += ("transfer.generator_steps", "transfer.student_steps")
    numbers += ("optimizer.generator_lr", "optimizer.student_lr")
    assert {key: float(said[key]) for key in numbers} == {key: leaves[key] for key in numbers}
    assert {key: said[key] for key in ("device", "transfer.pseudo_batch", "speed")} == {
        "device": leaves["device"],
        "transfer.pseudo_batch": leaves["transfer.pseudo_batch"],
        "speed": "auto",
    }


def test_measures_have_the_defaults_of_evaluate() -> None:
    curves = {
        name: each.default for name, each in inspect.signature(zskt_dist.mean_transition_error).parameters.items()
    }
    transitions = Config().transitions
    assert (curves["steps"], curves["step_size"], curves["rows"]) == (
        transitions.steps,
        transitions.step_size,
        transitions.rows,
    )
    assert (transitions.skip, curves["labels"]) == ("agreed", None)
    batch_size = inspect.signature(zskt_dist.evaluate).parameters["batch_size"].default
    assert batch_size == Config().evaluation.batch_size


@pytest.mark.parametrize(
    "config",
    [
        {"iterations": 4, "loss.beta": 0, "data.image_shape": (1, 4, 4), "data.mean": 0.5, "data.std": [0.25]},
        {
            "iterations": np.int64(4),
            "loss": {"beta": 0},
            "data": {"image_shape": [1, 4, 4], "mean": "0.5", "std": 0.25},
        },
        ["iterations=4", "loss.beta=0", "data.image_shape=1,4,4", "data.mean=0.5", "data.std=0.25"],
        ("loss={beta: 0}", "iterations=4", "data={image_shape: [1, 4, 4], mean: [0.5], std: 0.25}"),
    ],
    ids=["keys", "sections", "words", "words with sections"],
)
def test_config_takes_what_arguments_take(config: Any) -> None:
    """However a setting is written: to the bit the same student."""
    teacher, student = tiny_pair()
    other = tiny_pair()[1]
    rest = {key: value for key, value in SMALL.items() if key not in ("iterations", "input_shape")}
    stated = {"beta": 0, "iterations": 4, "input_shape": (1, 4, 4), "mean": 0.5, "std": 0.25}
    expected = zskt_dist.transfer(teacher, student, **rest, **stated, config=QUICK)
    result = zskt_dist.transfer(teacher, other, **rest, config=_joined(config))
    assert_equal(state_of(other), state_of(student))
    assert result.settings == expected.settings
    assert (result.iterations, result.settings["data.mean"]) == (4, [0.5])


def _joined(config: Any) -> Any:
    return QUICK | config if isinstance(config, dict) else [*words_of(QUICK), *config]


def test_one_number_stands_for_all_channels_and_others_must_be_as_many() -> None:
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    few = SMALL | {"input_shape": (3, 4, 4), "iterations": 1, "beta": 0, "config": QUICK}
    result = zskt_dist.transfer(teacher, student, **few, mean=0.5, std=[0.25])
    assert (result.settings["data.mean"], result.settings["data.std"]) == ([0.5] * 3, [0.25] * 3)
    with pytest.raises(ConfigError, match=r"^mean=\[0.5, 0.4\]: expected 3 number"):
        zskt_dist.transfer(teacher, student, **few, mean=[0.5, 0.4], std=1)
