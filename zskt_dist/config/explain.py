"""A pydantic ValidationError in the user's words: the dotted key, the value, what would work."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zskt_dist.config.schema import Config, flatten
from zskt_dist.errors import ConfigError, UserError, did_you_mean

_SYNONYMS = {"gpu": "cuda", "kl": "forward_kl", "js": "jensen_shannon"}
"""Words that people write, and the names they have here."""
_SHOWN = 5
"""Most problems that are said at once."""
_LISTS = {
    "seeds": "0,1,2",
    "generator.channels": "128,64",
    "data.image_shape": "3,32,32",
    "data.class_names": "cat,dog",
    "data.mean": "0.5",
    "data.std": "0.25",
    "loss.attention_layers": "0,1",
    "loss.taps.teacher": "layer1,layer2",
    "loss.taps.student": "layer1,layer2",
    "supervised.milestones": "0.3,0.6,0.8",
}
"""Keys that take a list, and one that they take."""
_OTHERS = {"loss.divergence": "your own as package.module:callable", "teacher.seed": "run"}
"""Keys of two kinds of values, and the second one in words: pydantic's first problem is with the first."""


def explain(error: ValidationError) -> ConfigError:
    """The first problem, with notes of further ones, five problems at most and the number of those left out."""
    distinct: dict[tuple[int | str, ...], ErrorDetails] = {}
    for each in error.errors():  # a union reports one problem for each of its members; the user sees one
        distinct.setdefault(each["loc"][:2], each)
    first, *others = map(_explain, itertools.islice(distinct.values(), _SHOWN))
    for problem in others:
        first.add_note(f"also: {problem}")
    if (left := len(distinct) - _SHOWN) > 0:
        first.add_note(f"also: {left} more")
    return first


def first_problem(path: object, error: ValidationError, keys: Iterable[str] = ()) -> UserError:
    """Of a file other than a configuration.

    Args:
        keys: Those that it may have at its top level, to name them where it has another.
    """
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        message = f"no such key; there are: {', '.join(keys)}"
    return UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {message}")


def _explain(problem: ErrorDetails) -> ConfigError:
    parts, section = _location(problem["loc"])
    key, value = ".".join(parts), problem["input"]
    empty = value is None  # YAML's null, and what it makes of `loss.beta=`
    value = "" if empty else list(value) if isinstance(value, tuple) else value
    further = f", or {_OTHERS[key]}" if key in _OTHERS else ""
    context = problem.get("ctx", {})
    match problem["type"]:
        case "clash":
            return ConfigError(context["key"], context["value"], context["problem"])
        case "extra_forbidden":
            return _unknown(parts, value, list(section.model_fields))
        case "literal_error":
            choices = context["expected"].replace(" or ", ", ").replace("'", "")
            hint = did_you_mean(_SYNONYMS.get(str(value), str(value)), choices.split(", "))
            return ConfigError(key, value, f"expected one of {choices}{further}{hint}")
        case "model_type" | "model_attributes_type":
            keys = ", ".join(section.model_fields)
            return ConfigError(key, value, f"is a section; set one of its keys: {keys}")
        case "tuple_type" | "list_type" if key in _LISTS:
            return ConfigError(key, value, f"expected a list, for example {key}={_LISTS[key]}")
        case "too_long" if key in _LISTS:
            return _of_other_length(key, value)
        case "missing" if (whole := ".".join(parts[:-1])) in _LISTS:
            return _of_other_length(whole, value)
        case "dict_type":
            return ConfigError(key, value, f"expected a mapping; set its members one by one, as {key}.NAME=VALUE")
        case "string_pattern_mismatch" if parts[-1] == "options":
            return ConfigError(key, value, "is no keyword argument: use letters, digits and '_'")
        case "string_pattern_mismatch":
            return ConfigError(key, value, "use letters, digits, '.', '_' and '-', starting with a letter or digit")
        case _:
            message = problem["msg"].replace("Input should be", "expected")
            missing = "no value is given; " if empty else ""
            return ConfigError(key, value, missing + message[0].lower() + message[1:] + further)


def _unknown(parts: Sequence[str], value: Any, known: Sequence[str]) -> ConfigError:
    """The error for a key whose last part is not among `known`; keys given below it are named in full."""
    *sections, unknown = parts
    words = list(parts)
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        words.append(str(name))
    problem = f"no section {unknown!r}" if len(words) > len(parts) else "no such key"
    prefix = "".join(f"{section}." for section in sections)
    hint = _in_other_section(unknown) or did_you_mean(unknown, known, prefix=prefix) or _in_other_section(words[-1])
    hint = hint or f"; {'.'.join(sections) or 'the top level'} has {', '.join(known)}"
    return ConfigError(".".join(words), value, problem + hint)


def _of_other_length(key: str, value: Any) -> ConfigError:
    length = len(_LISTS[key].split(","))
    return ConfigError(key, value, f"expected a list of {length}, for example {key}={_LISTS[key]}")


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
    """A hint where the key exists in another section."""
    found = [key for key, _ in flatten(Config()) if key.split(".")[-1] == leaf]
    return f"; did you mean {' or '.join(found)}?" if found else ""
