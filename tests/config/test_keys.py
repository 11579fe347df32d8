"""What keys are for, and that defaults never change."""

import json
from pathlib import Path

import pytest

from zskt_dist.config import Config, flatten, load_config
from zskt_dist.config.fields import Purpose
from zskt_dist.config.keys import digest, keys_for, purposes

DEFAULTS = Path(__file__).with_name("defaults.json")


def test_defaults_are_those_that_identities_leave_out() -> None:
    """A new key goes into the file, with the value at which runs are those of before; no value there ever changes."""
    assert dict(flatten(Config())) == json.loads(DEFAULTS.read_text())


@pytest.mark.parametrize(
    ("key", "purpose"),
    [
        ("loss.beta", Purpose.RECIPE),
        ("data.download", Purpose.PLACEMENT),
        ("tracking.images", Purpose.PLACEMENT),
        ("launch.workers", Purpose.WORKERS),
        ("launch.max_failures", Purpose.PLACEMENT),
        ("engine.activation_checkpointing", Purpose.SPEED),
        ("engine.micro_batch", Purpose.RECIPE),
        ("speed.compile", Purpose.SPEED),
        ("speed.precision", Purpose.RECIPE),
        ("transitions.rows", Purpose.MEASUREMENT),
        ("evaluation.snapshots", Purpose.MEASUREMENT),
        ("evaluation.every", Purpose.RECIPE),
    ],
)
def test_purpose(key: str, purpose: Purpose) -> None:
    assert purposes()[key] is purpose
    assert key in keys_for(purpose)


def test_every_key_has_one() -> None:
    assert set(purposes()) == {key for key, _ in flatten(Config())} | {"teacher.options", "student.options"}


def test_an_option_that_is_given_and_null_is_told_from_one_that_is_not() -> None:
    given = load_config(None, ["teacher.options.width=null"])
    assert digest(dict(flatten(given))) != digest(dict(flatten(Config())))
