"""What is settled so far of a configuration: stated, found, or asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zskt_dist.config import Config, parse_config
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.init.answers import Found, Question, ask

T = TypeVar("T")


@dataclass
class Settling:
    """A configuration that grows.

    Attributes:
        asking: True if there is somebody at a terminal to answer.
        yes: True if values that are merely usual are taken without asking.
        tree: Keys and values so far, as they will stand in the file.
        sources: Where values were found, by dotted key.
        missing: Questions that nobody has answered, each with what would be taken with `yes`, as an option.
    """

    asking: bool
    yes: bool
    tree: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    missing: list[tuple[Question[Any], str | None]] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """What is settled, and else the defaults; raises ConfigError where values are wrong.

        A mean counts once there is a standard deviation for each of its numbers.
        """
        data = self.data
        if len(data.get("mean", ())) != len(data.get("std", ())):
            data = {key: value for key, value in data.items() if key not in ("mean", "std")}
        return parse_config({**self.tree, "data": data})

    @property
    def data(self) -> dict[str, Any]:
        """The section `data`."""
        section: dict[str, Any] = self.tree["data"]
        return section

    def take(self, key: str, value: Any, source: str, shown: str) -> None:
        """Takes what was found for a key of `data`, and says so; what is stated stays, and is compared later."""
        if key in self.data:
            return
        self.data[key] = value
        self.sources[f"data.{key}"] = source
        print(f"{key.removeprefix('num_').replace('_', ' '):12} {shown}, {source}")

    def resolve(self, question: Question[T], key: str, found: Found[T] | None, store: Callable[[T], Any]) -> T | None:
        """The answer to a question, kept under a key of `data`; None where nobody answers, which is then `missing`.

        Args:
            found: A guess.
            store: Makes of an answer what stands in the file.
        """
        if found and self.yes:
            try:
                value = question.read(question.write(found.value))
            except UserError as error:
                raise UserError(f"{question.option}: {found.source}, and that will not do: {error}") from None
            self.take(key, store(value), found.source, question.write(value))
            return value
        if not self.asking:
            self.missing.append((question, f"{question.option} {question.write(found.value)}" if found else None))
            return None
        value = ask(question, found)
        self.data[key] = store(value)
        if found and value == found.value:
            self.sources[f"data.{key}"] = found.source
        return value

    def check_missing(self) -> None:
        """Raises UserError with all that is missing, in one line."""
        if not self.missing:
            return
        asked = [question for question, _ in self.missing]
        options = [question.option for question in asked]
        listed = " and ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
        examples = " ".join(f"{question.option} {question.example}" for question in asked)
        guesses = [guess for _, guess in self.missing if guess]
        usual = f"; --yes takes what is usual: {' '.join(guesses)}" if len(guesses) == len(asked) else ""
        where = "leave out --yes at a terminal" if self.yes else "run this at a terminal"
        raise UserError(f"{listed} must be stated, for example {examples}, or {where} to be asked{usual}")


def of_option(option: str, text: str, read: Callable[[str], T]) -> T:
    """What an option says; raises UserError that names it."""
    try:
        return read(text)
    except ConfigError:
        raise
    except UserError as error:
        raise UserError(f"{option}: {error}") from None
