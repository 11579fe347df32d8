"""What sections are made of: kinds of values, what keys are for, the base of all sections, and clashes of values."""

from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
"""`package.module:callable`, the user's code."""
Seed = Annotated[int, Field(ge=0, lt=2**64)]


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value  # strict mode takes no list for a tuple


def _local(value: str) -> str:
    if "://" in value:
        raise PydanticCustomError("uri", "is a URI; expected a folder or file of this machine")
    return value


Local = Annotated[str, AfterValidator(_local)]
"""A folder or file of this machine."""


def as_numbers(value: object) -> object:
    """A tuple for a list of numbers, for one without brackets, `1,28,28`, and for one number; else the value itself."""
    if isinstance(value, str):
        found = [_number(word) for word in value.split(",")]
        return value if None in found else tuple(found)
    single = isinstance(value, int | float) and not isinstance(value, bool)
    return (value,) if single else _listed(value)


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def _texts(value: object) -> object:
    """Also takes a list without brackets, `cat,dog`."""
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else _listed(value)


LIST_OF_NUMBERS = BeforeValidator(as_numbers)
"""Marks the type of a key, `Annotated[tuple[Positive, ...] | None, LIST_OF_NUMBERS]`."""
LIST_OF_TEXTS = BeforeValidator(_texts)
# An empty tuple and a missing one mean different things, so YAML's null is kept apart from [].
Layers = Annotated[tuple[NonNegative, ...] | None, LIST_OF_NUMBERS]
Options = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], JsonValue]


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise PydanticCustomError("layer_name", "expected the name of a layer; quote one that YAML reads as a number")
    return value


def _is_place(value: object) -> object:
    return str(value) if type(value) is int else value


OutputName = Annotated[str, BeforeValidator(_is_place)]
"""A key, a field, or a number that is a place in a sequence."""
LayerNames = Annotated[tuple[Annotated[str, BeforeValidator(_is_text)], ...] | None, LIST_OF_TEXTS]


class Purpose(Enum):
    """What a key is for; stands in its type, `Annotated[bool, Purpose.SPEED]`, or in that of its section."""

    RECIPE = "recipe"
    """Decides what is computed; the default for keys without another purpose."""
    WORKERS = "workers"
    """Where a run is computed, and by how many workers. Makes another run, but a named run may continue elsewhere."""
    SPEED = "speed"
    """Changes no more than the rounding."""
    PLACEMENT = "placement"
    """Where files and records of a run go."""
    MEASUREMENT = "measurement"
    """Measures a trained network and changes nothing in it."""


def clash(key: str, value: object, problem: str) -> PydanticCustomError:
    """The error for values that are fine each by itself but cannot work together; `config.explain` reads it."""
    return PydanticCustomError("clash", "{problem}", {"key": key, "value": value, "problem": problem})


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)
