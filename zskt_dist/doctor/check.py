"""What a check of `doctor` is, what it is given and what it finds."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from zskt_dist.config import Config

Status = Literal["ok", "warning", "problem"]

LITTLE = 2 * 2**30
"""Bytes of memory or disk below which there is a warning."""


class Outcome(NamedTuple):
    """What a check has found."""

    status: Status
    text: str
    advice: str | None = None
    details: dict[str, Any] = {}  # noqa: RUF012 (never changed)


class Requirements(NamedTuple):
    """What the configuration asks of the machine; the defaults, and no `config`, where it cannot be read."""

    runs_dir: str = "runs"
    tracking_uri: str | None = None
    device: str = "auto"
    launcher: str = "local"
    engine: str = "ddp"
    config: "Config | None" = None

    @classmethod
    def of(cls, config: "Config") -> "Requirements":
        return cls(config.runs_dir, config.tracking.uri, config.device, config.launch.kind, config.engine.kind, config)


class Check(NamedTuple):
    """One thing to check.

    Attributes:
        advice: Where the check itself fails.
        essential: True if every run needs it.
        seconds: After which it counts as hanging.
        required_by: True for a configuration that asks for it.
    """

    name: str
    run: Callable[[Requirements], Outcome]
    advice: str
    essential: bool = False
    seconds: float = 30.0
    required_by: Callable[[Requirements], bool] = lambda _: False


def existing_folder(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())
