"""What a run directory has for its page."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from zskt_dist.config import Config
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.errors import UserError
from zskt_dist.evaluation.confusion import FILE, Confusion, confusion_of, read_confusion
from zskt_dist.evaluation.measured import Measured, measured
from zskt_dist.figures.run import grids
from zskt_dist.files import read_json, sha256_of
from zskt_dist.runs.directory import Result, RunDirectory
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.local import read_history

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """One finished run, or several seeds; its files are read when they are asked for.

    What is damaged counts as missing, with a warning.
    """

    directory: RunDirectory
    result: Result

    @property
    def role(self) -> str:
        """Of the network that the run has trained."""
        return "student" if self.result["student"] else "teacher"

    @cached_property
    def config(self) -> Config | None:
        return _readable(self.directory.read_config)

    @cached_property
    def history(self) -> list[Row]:
        return _readable(lambda: read_history(self.directory.history)) or []

    @property
    def grids(self) -> list[Path]:
        """Pictures of pseudo-images, in order."""
        return grids(self.directory)

    @cached_property
    def estimates(self) -> dict[str, Any]:
        """The content of `estimates.json`; empty where nothing was estimated."""
        return read_json(self.directory.estimates) or {}

    @cached_property
    def measured(self) -> list[Measured]:
        others = any(self.directory.evaluation.glob("other-*"))
        weights = self.directory.weights(self.role)
        return measured(self.directory, self.result, self.role, sha256_of(weights) if others else "")

    @cached_property
    def exports(self) -> list[dict[str, Any]]:
        """The contents of `export.json`, with the folder's name."""
        found = {name: read_json(self.directory.path / name / "export.json") for name in ("export", "export-teacher")}
        return [content | {"folder": name} for name, content in found.items() if content]

    @property
    def latencies(self) -> dict[str, dict[str, float]]:
        """Milliseconds of a forward pass by number of images, by role, where the student was exported."""
        for content in self.exports:
            if content["folder"] == "export" and isinstance(networks := content.get("networks"), dict):
                return {role: network["latency_ms"] for role, network in networks.items() if "latency_ms" in network}
        return {}

    @property
    def pseudo_data(self) -> dict[str, Any] | None:
        """What the run's pseudo-data says of itself."""
        folder = self.directory.path / "pseudo_data"
        opened = _readable(lambda: PseudoData.open(str(folder))) if folder.is_dir() else None
        return dict(opened.about) if opened else None

    def confusion(self, found: Measured) -> Confusion | None:
        """Which classes the networks take for which."""
        if kept := _readable(lambda: read_confusion(found.folder / FILE)):
            return kept
        counts = {name: counts for name, counts in found.answer.get("confusion", {}).items() if name != "agreement"}
        return confusion_of(counts, None) if counts else None  # of an earlier version


def _readable(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except UserError as error:
        log.warning("%s", error)
        return None
