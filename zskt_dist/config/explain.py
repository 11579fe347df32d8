"""A pydantic ValidationError in the user's words: the dotted key, the value, what would work."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zskt_dist.config.schema import Config, flatten
from zskt_dist.errors import ConfigError, did_you_mean

_SYNONYMS = {"gpu": "cuda", "kl": "forward_kl", "js": "jensen_shannon"}
"""What people write, and what it is called here."""


def explain(error: ValidationError) -> ConfigError:
    """The first problem, with the number of further ones."""
    first, *others = error.errors()
    explained = _explain(first)
    # A union reports one problem for each of its members; they are one to the user.
    more = len({e["loc"][:2] for e in others} - {first["loc"][:2]})
    if more:
        explained = ConfigError(explained.key, explained.value, f"{explained.problem} (and {more} more)")
    return explained


def _explain(problem: ErrorDetails) -> ConfigError:
    parts, section = _location(problem["loc"])
    key, value = ".".join(parts), problem["input"]
    context = problem.get("ctx", {})
    match problem["type"]:
        case "clash":
            return ConfigError(context["key"], context["value"], context["problem"])
        case "extra_forbidden":
            known = list(section.model_fields)
            hint = _in_other_section(parts[-1]) or did_you_mean(parts[-1], known)
            where = ".".join(parts[:-1]) or "the top level"
            return ConfigError(key, value, f"no such key{hint}" if hint else f"no such key; {where} has {_list(known)}")
        case "literal_error":
            choices = context["expected"].replace(" or ", ", ").replace("'", "")
            hint = did_you_mean(_SYNONYMS.get(str(value), str(value)), choices.split(", "))
            return ConfigError(key, value, f"expected one of {choices}{hint}")
        case "model_type" | "model_attributes_type":
            return ConfigError(key, value, f"is a section; set one of its keys: {_list(section.model_fields)}")
        case "dict_type":
            return ConfigError(key, value, f"expected a mapping; set its members one by one, as {key}.NAME=VALUE")
        case "string_pattern_mismatch" if parts[-1] == "options":
            return ConfigError(key, value, "is no keyword argument: use letters, digits and '_'")
        case "string_pattern_mismatch":
            return ConfigError(key, value, "use letters, digits, '.', '_' and '-', starting with a letter or digit")
        case _:
            message = problem["msg"].replace("Input should be", "expected")
            return ConfigError(key, value, message[0].lower() + message[1:])


def _location(loc: Sequence[int | str]) -> tuple[list[str], type[BaseModel]]:
    """The dotted parts of a pydantic location, and the schema section its last key is in."""
    parts: list[str] = []
    section: type[BaseModel] = Config
    inner: type[BaseModel] | None = Config
    for part in loc:
        if inner is not None:
            parts.append(str(part))
            section = inner
            field = inner.model_fields.get(str(part))
            inner = _as_section(field.annotation) if field else None
        elif isinstance(part, int):  # inside a value: an index of a list; names here label a union's members
            parts.append(str(part))
    return parts, inner or section


def _as_section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _in_other_section(leaf: str) -> str:
    """A key given without its section, or in a wrong one."""
    found = [key for key, _ in flatten(Config()) if key.split(".")[-1] == leaf]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _list(words: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(words)
