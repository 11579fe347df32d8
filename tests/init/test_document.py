"""The file: every value is read back as it was, whatever is in it."""

import pytest
import yaml

from zskt_dist.config import config_of_yaml, dump_value, parse_config
from zskt_dist.errors import ConfigError
from zskt_dist.init.document import document, name_of

_ODD = [
    "no",
    "1e3",
    "a: b # c",
    "two\nlines",
    "'",
    '"',
    "[1]",
    "",
    "ünï",
    "null",
    "2020-01-01",
    "- x",
    "*a",
    "%",
    "x" * 300,
]


@pytest.mark.parametrize("text", _ODD)
def test_any_name_of_a_file_survives(text: str) -> None:
    tree = {"teacher": {"arch": "wrn-10-1", "checkpoint": text}, "data": {"name": "none"}}
    written = document(tree, "my file.yaml", {"teacher.checkpoint": "a note"})
    assert config_of_yaml(written).teacher.checkpoint == text
    assert yaml.safe_load(written)["teacher"]["arch"] == "wrn-10-1"
    assert "zskt train --config 'my file.yaml'\n" in written
    assert [line for line in written.splitlines() if line.endswith("  # a note")]


def test_a_name_of_a_network_cannot_leave_the_comment() -> None:
    tree = {"teacher": {"arch": "a:b\nseed: 3", "checkpoint": "t.pt"}}
    assert config_of_yaml(document(tree, "z.yaml", {})).seed == 0


def test_values_that_are_no_configuration_are_refused() -> None:
    with pytest.raises(ConfigError, match="iterations=0"):
        document({"teacher": {"arch": "lenet"}, "iterations": 0}, "z.yaml", {})


@pytest.mark.parametrize("value", [1e-3, 0.1, 3, True, None, [1.0, 2.5], {"width": 2, "names": ["a", "no"]}, "1e3"])
def test_one_value_stands_on_one_line(value: object) -> None:
    text = dump_value(value)
    assert "\n" not in text
    config = config_of_yaml(f"teacher: {{arch: lenet, options: {{x: {text}}}}}")
    assert config.teacher.options == {"x": value}
    assert config == parse_config({"teacher": {"arch": "lenet", "options": {"x": value}}})


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("wrn-40-2", "wrn-40-2"),
        ("timm:resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("package.module:make_network", "make_network"),
        ("m:_private", "private"),
        ("m:Ünï", "n"),
        ("m:__", "student"),
        ("m:" + "x" * 300, "x" * 100),
    ],
)
def test_experiments_are_named_after_the_teacher(arch: str, name: str) -> None:
    assert name_of(arch) == name
    parse_config({"experiment": name})
