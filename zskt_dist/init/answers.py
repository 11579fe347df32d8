"""Questions on the terminal: each answer is read and checked at once, and asked for again with the reason."""

import math
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Generic, TypeVar

from zskt_dist.errors import ConfigError, UserError
from zskt_dist.models import ImageShape

T = TypeVar("T")


@dataclass(frozen=True)
class Found(Generic[T]):
    """A value that nobody has stated, and why it may be right, in words."""

    value: T
    source: str


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked.

    Attributes:
        option: The option that answers it, as `--mean`.
        topic: A word or two, in front of the answer.
        text: The question in a sentence or two.
        example: An answer, as it is typed.
        read: Reads and checks an answer; raises UserError with the reason why it will not do.
        write: Writes a value as `read` reads it.
    """

    option: str
    topic: str
    text: str
    example: str
    read: Callable[[str], T]
    write: Callable[[T], str]


def ask(question: Question[T], default: Found[T] | None) -> T:
    """Asks on the terminal until an answer will do; an empty one means the default.

    Raises:
        UserError: the input has ended; KeyboardInterrupt: Ctrl-C.
    """
    print()
    _say(question.text)
    usual = "" if default is None else question.write(default.value)
    if default is None:
        _say(f"For example {question.example}.")
    else:
        _say(f"Enter alone: {usual}, {default.source}.")
    while True:
        text = _line(f"{question.topic}{f' [{usual}]' if usual else ''}: ", question.option)
        text = text or usual
        if not text:
            _say("an answer is needed; Ctrl-C leaves", indent="  ")
            continue
        try:
            return question.read(text)
        except UserError as error:
            _say(reason_of(error), indent="  ")


def _say(text: str, indent: str = "") -> None:
    """Prints a paragraph in lines that fit the terminal, and are not too long to read."""
    width = max(40, min(shutil.get_terminal_size().columns, 100))
    print(fill(text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False))


def _line(prompt: str, option: str) -> str:
    """One line of the terminal without the blanks around it."""
    try:
        return input(prompt).strip()
    except EOFError:
        print()
        raise UserError(f"the input has ended before this was answered; answer it with {option}") from None
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}"
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise


def reason_of(error: UserError) -> str:
    """Why a value will not do, without the key that the user has not typed."""
    return f"{error.value}: {error.problem}" if isinstance(error, ConfigError) else str(error)


def read_shape(text: str, channels: int | None = None) -> ImageShape:
    """`3,32,32` or `[3, 32, 32]` or `3x32x32`; `32,32` and `32` where the channels are known.

    Raises:
        UserError: it is no shape.
    """
    sizes = [int(each) if each.isdecimal() and len(each) < 7 else 0 for each in _parts(text, "x×")]
    if channels and len(sizes) == 1:
        sizes *= 2
    if channels and len(sizes) == 2:
        sizes = [channels, *sizes]
    if len(sizes) != 3 or min(sizes) < 1:
        raise UserError(f"{text!r} is no shape; write channels,height,width, for example 3,32,32")
    return ImageShape(*sizes)


def write_shape(shape: ImageShape) -> str:
    return ",".join(map(str, shape))


def read_count(text: str) -> int:
    """A number of classes; raises UserError where it is none."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 2:
        raise UserError(f"{text!r} is no number of classes; write a whole number from 2 on, for example 10")
    return int(text)


def read_mean(text: str, channels: int | None = None) -> tuple[float, ...]:
    """One number per channel, `0.5,0.5,0.5`; a single one is that of every channel.

    Raises:
        UserError: they are no such numbers, or of pixels from 0 to 255.
    """
    numbers = _numbers(text, channels, "0.485,0.456,0.406")
    if max(map(abs, numbers)) > 1:
        raise UserError(f"{text!r} is of pixels from 0 to 255; for pixels in [0, 1] it is {_of_bytes(numbers)}")
    return numbers


def read_std(text: str, channels: int | None = None) -> tuple[float, ...]:
    """As `read_mean`; deviations are larger than 0."""
    numbers = _numbers(text, channels, "0.229,0.224,0.225")
    if min(numbers) <= 0:
        raise UserError(f"{text!r}: a standard deviation is larger than 0; where nothing was divided it is 1")
    if max(numbers) > 1:
        raise UserError(f"{text!r} is of pixels from 0 to 255; for pixels in [0, 1] it is {_of_bytes(numbers)}")
    return numbers


def write_numbers(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:.12g}" for number in numbers)


def _numbers(text: str, channels: int | None, example: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, _parts(text)))
    except ValueError:
        numbers = ()
    if channels and channels != 3:
        example = ",".join(["0.5"] * channels)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UserError(f"{text!r} is no list of numbers; write one per channel, for example {example}")
    if channels and len(numbers) == 1:
        numbers *= channels
    if channels and len(numbers) != channels:
        images = f"images of {channels} channel{'s' * (channels > 1)}"
        raise UserError(f"{text!r} has {len(numbers)} numbers, and {images} need {channels}, or one for all")
    return numbers


def _of_bytes(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number / 255:.4g}" for number in numbers)


def _parts(text: str, between: str = "") -> list[str]:
    """What commas, blanks, or other signs set apart, within brackets or without."""
    return [part for part in re.split(rf"[\s,;{between}]+", text.strip().strip("[]()").strip()) if part]
