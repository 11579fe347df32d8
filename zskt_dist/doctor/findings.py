"""Can this machine train? One finding for each check, with advice where something is missing.

Each check is on its own: one that raises or hangs is a finding like any other.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from zskt_dist.addresses import masked
from zskt_dist.doctor.check import Check, Outcome, Requirements, Status
from zskt_dist.doctor.checks import CHECKS
from zskt_dist.errors import one_line
from zskt_dist.launch.signals import InThread

# Addresses and commands stay whole.
_WRAPPER = textwrap.TextWrapper(110, subsequent_indent=" " * 24, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Finding:
    """An `Outcome` with what was checked.

    Attributes:
        essential: True if every run needs it, or the configuration asks for it.
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


def examine(
    path: str | None, overrides: Sequence[str] = (), checks: Iterable[Check] | None = None
) -> Iterator[Finding]:
    """One finding after the other, that about the configuration first.

    Args:
        path: Configuration whose wants count; None: the defaults.
        checks: What to check; None: everything.
    """
    read: list[Requirements] = []

    def configuration(_: Requirements) -> Outcome:
        from zskt_dist.config import load_config

        config = load_config(path, overrides)
        read.append(Requirements.of(config))
        advice = None
        if any(word.startswith(("teacher.", "student.")) for word in overrides):
            advice = f"networks and their weights are looked at with --teacher {config.teacher.arch} alone"
        return Outcome("ok", path or "the defaults", advice)

    yield _finding(
        Check("configuration", configuration, "correct it; until then the defaults are looked at", True), Requirements()
    )
    requirements = read[0] if read else Requirements()
    for check in CHECKS if checks is None else checks:
        yield _finding(check, requirements)


def healthy(findings: Iterable[Finding]) -> bool:
    """True if a run with this configuration can begin: everything that is essential works."""
    return not any(finding.essential and finding.status == "problem" for finding in findings)


def _finding(check: Check, requirements: Requirements) -> Finding:
    outcomes: list[Outcome] = []
    thread = InThread(lambda: outcomes.append(check.run(requirements)), check.name)
    if not thread.ended(within=check.seconds):
        outcome = Outcome("problem", f"has not answered within {check.seconds:g} s", check.advice)
    elif thread.failure is not None:
        outcome = Outcome("problem", one_line(thread.failure), check.advice)
    else:
        (outcome,) = outcomes
    advice = outcome.advice and masked(outcome.advice)
    essential = check.essential or check.required_by(requirements)
    return Finding(check.name, outcome.status, masked(outcome.text), advice, essential, outcome.details)
