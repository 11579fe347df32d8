"""The command line of a verb that takes settings: `key=value` words beside its options."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from zskt_dist import logs
from zskt_dist.errors import EXIT_USER_ERROR

_SYNONYMS = {
    "lr": ("optimizer.student_lr", "supervised.learning_rate"),
    "epochs": ("iterations",),
    "teacher": ("teacher.arch",),
    "student": ("student.arch",),
    "dataset": ("data.name",),
}
"""What other programs call their options, and the settings that they are here."""


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """As `logs.parse`; a setting that is written as an option, `--iterations 100`, is answered with the right form."""
    words = list(sys.argv[1:] if argv is None else argv)
    if found := _settings_among(words, [option for action in parser._actions for option in action.option_strings]):
        written, right = map(" ".join, zip(*found, strict=True))
        print(f"error: {written}: settings are written key=value: {right}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR)
    return logs.parse(parser, words)


def _settings_among(words: Sequence[str], options: Sequence[str]) -> list[tuple[str, str]]:
    """Settings that are written as options, as they are and as they should be."""
    found = []
    known = {*options, "--", "--verbose"}
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if not option.startswith("--") or option in known or not (keys := _keys_called(option[2:])):
            continue
        following = words[number + 1 : number + 2]
        if not equals and following and not following[0].startswith("--") and "=" not in following[0]:
            (value,) = following
            word = f"{word} {value}"
        found.append((word, " or ".join(f"{key}={shlex.quote(value) if value else 'VALUE'}" for key in keys)))
    return found


def _keys_called(name: str) -> Sequence[str]:
    """Settings that an option may mean, by their key, the last part of it, or a word of other programs."""
    from zskt_dist.config import Config, flatten  # late: only a mistake needs it

    name = name.replace("-", "_")
    keys = [key for key, _ in flatten(Config())]
    if name in keys:
        return [name]
    return _SYNONYMS.get(name) or [key for key in keys if key.rpartition(".")[2] == name]
