"""Writes docs/configuration.md from the schema; with --check, exits with 1 where the file is out of date."""

import argparse
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from zskt_dist.config import Config
from zskt_dist.config.fields import ImportPath

PATH = Path(__file__).with_name("configuration.md")
HEAD = """\
# Configuration

Made from the schema in `zskt_dist/config/` by `docs/make_configuration.py`; do not edit.

A key is set in YAML, as `dotted.key=value` on the command line, for example `loss.beta=0`, or in `config` of
[`zskt_dist.transfer`](python.md). Unknown keys and wrong types are errors. `--print-config` shows the whole
configuration of a run.

- **Lists** may be written without brackets, which shells read themselves: `data.image_shape=1,28,28`, `seeds=0,1,2`. A
  single number is a list of one: `data.mean=0.13`. One number of `data.mean` and `data.std` stands for all channels.
- **Numbers** are decimal: `1000`, `1_000`, `2e-3`. Neither `010` nor `0x10` is one.
- **Names** of runs and experiments are taken as they are written: `name=010` keeps its zero.
- **Nothing** behind the equals sign is null: `name=`. Where null has no meaning, that is an error.
"""


def page() -> str:
    """A table of the run's own keys, then one for each section, in the order of the schema."""
    config = Config()
    parts = [HEAD, *_table(config, "")]
    for name in Config.model_fields:
        section = getattr(config, name)
        if isinstance(section, BaseModel):
            parts += ["", f"## {name}", "", *_summary(type(section)), *_table(section, f"{name}.")]
    return "\n".join(parts) + "\n"


def _summary(section: type[BaseModel]) -> list[str]:
    return [cleandoc(section.__doc__), ""] if section.__doc__ else []


def _table(section: BaseModel, prefix: str) -> Iterator[str]:
    yield "| key | values | default | meaning |"
    yield "|---|---|---|---|"
    yield from _rows(section, prefix)


def _rows(section: BaseModel, prefix: str) -> Iterator[str]:
    """One for each key; a section within a section has one for itself and then those of its keys."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        if not isinstance(value, BaseModel):
            yield f"| `{prefix}{name}` | {_values(field.annotation)} | `{_plain(value)}` | {meaning} |"
        elif prefix:
            yield f"| `{prefix}{name}` | section | | {meaning} |"
            yield from _rows(value, f"{prefix}{name}.")


def _values(kind: Any) -> str:
    """The type in words, or the possible values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == ImportPath:
        return "`package.module:callable`"
    if origin is Annotated:
        return _values(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_values(argument) for argument in arguments)
    if origin is Literal:
        return ", ".join(f"`{_plain(value)}`" for value in arguments)
    if origin is dict:
        return "mapping"
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{_values(arguments[0])}s"
    words = {str: "text", int: "integer", float: "number", bool: "true, false", NoneType: "null"}
    return words.get(kind, str(kind))


def _plain(value: object) -> str:
    """As YAML on one line."""
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        PATH.write_text(page(), encoding="utf-8")
        return 0
    if PATH.exists() and PATH.read_text(encoding="utf-8") == page():
        return 0
    print(f"{PATH} is out of date; run python docs/make_configuration.py")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
