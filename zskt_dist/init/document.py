"""The file: a configuration as YAML with a comment on each key."""

import re
from collections.abc import Mapping
from shlex import quote
from typing import Any

from zskt_dist.config import config_of_yaml, dump_value, parse_config

_HEAD = """\
# A small student of {arch}, made without its training data. `zskt init` wrote this file; it is yours to change.
# Check it and see the plan:   zskt train --config {file} --dry-run
# Train, or continue:          zskt train --config {file}
# All keys, with their values: zskt train --config {file} --print-config
"""
_COMMENTS = {
    "experiment": "groups runs: a folder under runs/, and an experiment in MLflow",
    "iterations": "steps of the student; more take longer and mostly help",
    "batch_size": "made images in each step",
    "teacher.arch": "the network that is to be compressed",
    "teacher.checkpoint": "its weights",
    "student.arch": "the network to train",
    "data.image_shape": "channels, height, width",
    "data.num_classes": "length of the networks' answers",
    "data.mean": "the normalisation of the teacher's images, of pixels in [0, 1]",
    "data.std": "",
    "inversion.flip": "true where left and right mean nothing: photographs, not digits or letters",
    "loss.beta": "weight of attention maps, which the paper compares at 250 (docs/attention.md)",
    "generator.channels": "of the network that makes the images; enough for 8 to 32 pixels",
    "evaluation.every": "steps between two measurements of the student",
    "checkpoint.every": "steps between two checkpoints, from which an interrupted run continues",
}


def name_of(arch: str) -> str:
    """The name of an experiment, by the teacher's network."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", arch.rpartition(":")[2]).strip("._-")
    return name[:100] or "student"


def document(tree: Mapping[str, Any], file: str, comments: Mapping[str, str]) -> str:
    """YAML text that the product's own reader has read back.

    Args:
        tree: Keys and values, as they stand in the file.
        file: Its name, for the commands in it.
        comments: By dotted key, on top of the usual ones.

    Raises:
        ConfigError: the values do not make a configuration.
    """
    notes = _COMMENTS | dict(comments)
    lines: list[str] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += (f"  {_line(leaf, inner, notes.get(f'{key}.{leaf}'))}" for leaf, inner in value.items())
        else:
            lines.append(_line(key, value, notes.get(key)))
    head = _HEAD.format(arch=" ".join(tree["teacher"]["arch"].split()), file=quote(file))
    text = head + "\n".join(lines) + "\n"
    assert config_of_yaml(text) == parse_config(tree), "the file means what was settled"
    return text


def _line(key: str, value: Any, comment: str | None) -> str:
    return f"{key}: {dump_value(value)}" + (f"  # {comment}" if comment else "")
