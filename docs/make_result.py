"""Writes docs/result.md and the package's schema from the types of results; --check: exits with 1 where one is old."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zskt_dist.runs import result
from zskt_dist.runs.result import schema

PAGE = Path(__file__).with_name("result.md")
SCHEMA = Path(result.__file__).with_name("result.schema.json")
HEAD = """\
# result.json

Made from `zskt_dist/runs/result.py` by `docs/make_result.py`; do not edit.

Every command answers with one JSON object: as `result.json` in its run directory, and in FILE with `--json FILE`.
The package ships its [JSON schema](../zskt_dist/runs/result.schema.json). Shares such as accuracies are fractions of 1;
null stands for what could not be measured. Results of older versions may lack fields, later versions may add some.
"""


def page(schema: dict[str, Any]) -> str:
    """A table for each kind of result, in the order of the schema, and behind it those of its parts."""
    definitions = schema["$defs"]
    waiting = [_name(each) for each in schema["anyOf"]]
    parts, shown = [HEAD], set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in shown:
            continue
        shown.add(name)
        described = definitions[name]
        text = " ".join(described.get("description", "").split())
        parts += [f"## {name}", "", *([text, ""] if text else []), *_table(described), ""]
        waiting = [*_parts(described["properties"]), *waiting]
    return "\n".join(parts).rstrip() + "\n"


def _table(described: dict[str, Any]) -> Iterator[str]:
    yield "| field | values | meaning |"
    yield "|---|---|---|"
    for name, field in described["properties"].items():
        meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
        optional = "" if name in described.get("required", ()) else ", or absent"
        yield f"| `{name}` | {_values(field)}{optional} | {meaning} |"


def _values(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(map(_values, field["anyOf"]))
    if "$ref" in field:
        return f"[{_name(field)}](#{_name(field).lower()})"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"list of {_values(field['items'])}s"
    if field["type"] == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_values(values)}" if isinstance(values, dict) else "mapping"
    words = {"string": "text", "number": "number", "integer": "integer", "boolean": "true, false", "null": "null"}
    return words[field["type"]]


def _parts(value: Any) -> Iterator[str]:
    """Names of the definitions that are referred to."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield _name(value)
        for each in value.values():
            yield from _parts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _parts(each)


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check, code = parser.parse_args().check, 0
    for path, text in ((PAGE, page(schema())), (SCHEMA, json.dumps(schema(), indent=2) + "\n")):
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path} is out of date; run python docs/make_result.py")
            code = 1
    return code


if __name__ == "__main__":
    raise SystemExit(main())
