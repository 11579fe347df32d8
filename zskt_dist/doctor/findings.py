"""Whether this machine can train, looked at piece by piece; what is missing is said with what to do about it.

Each look is on its own: one that raises or hangs is a finding like any other.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from zskt_dist.doctor.checks import LOOKS, Answer, Look, Status, Wanted, brief
from zskt_dist.launch.signals import InThread

# Addresses and commands stay whole.
_WRAPPER = textwrap.TextWrapper(110, subsequent_indent=" " * 24, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Finding:
    """An `Answer` with what was looked at.

    Attributes:
        essential: Whether every run needs it, or what the configuration asks for.
        details: The same for programs; sizes in bytes.
    """

    name: str
    status: Status
    text: str
    advice: str | None = None
    essential: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.status:9}{self.name:15}{self.text}", *([f"{'':24}-> {self.advice}"] if self.advice else [])]
        return "\n".join(_WRAPPER.fill(line) for line in lines)


def examine(path: str | None, overrides: Sequence[str] = (), looks: Iterable[Look] | None = None) -> Iterator[Finding]:
    """One finding after the other, that about the configuration first.

    Args:
        path: Configuration whose wants count; None: the defaults.
        looks: What to look at; None: everything.
    """
    read: list[Wanted] = []

    def configuration(_: Wanted) -> Answer:
        from zskt_dist.config import load_config

        read.append(Wanted.of(load_config(path, overrides)))
        return Answer("ok", path or "the defaults")

    yield _finding(
        Look("configuration", configuration, "correct it; until then the defaults are looked at", True), Wanted()
    )
    wanted = read[0] if read else Wanted()
    for look in LOOKS if looks is None else looks:
        yield _finding(look, wanted)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether a run with this configuration can begin: everything that is essential works."""
    return not any(finding.essential and finding.status == "problem" for finding in findings)


def masked(text: str) -> str:
    """`text` without the users and passwords of URIs, and without the values of their secret parameters."""
    text = re.sub(r"://\S*@", "://…@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:key|secret|token|password|signature|credential)[^=&\s]*=)[^&\s]+", r"\1…", text)


def _finding(look: Look, wanted: Wanted) -> Finding:
    answers: list[Answer] = []
    thread = InThread(lambda: answers.append(look.at(wanted)), look.name)
    if not thread.ended(within=look.seconds):
        answer = Answer("problem", f"has not answered within {look.seconds:g} s", look.advice)
    elif thread.failure is not None:
        answer = Answer("problem", brief(thread.failure), look.advice)
    else:
        (answer,) = answers
    advice = answer.advice and masked(answer.advice)
    essential = look.essential or look.asked(wanted)
    return Finding(look.name, answer.status, masked(answer.text), advice, essential, answer.details)
