"""Checkpoints: each is written whole or not at all and verified when read; the newest good one wins.

A file's name carries the SHA-256 of its iteration and content (`000500-3f2a….pt`), so the file shows whether it is
whole, and there is no separate index to lose.
"""

import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zskt_dist.errors import one_line
from zskt_dist.files import write_atomic

log = logging.getLogger(__name__)

State = dict[str, Any]
_NAME = re.compile(r"(?P<iteration>\d+)-(?P<digest>[0-9a-f]{64})\.pt")


class Saved(NamedTuple):
    iteration: int
    state: State


class CheckpointStore:
    """The last `keep` checkpoints in a folder.

    Args:
        on_saved: Called after each checkpoint.
    """

    def __init__(self, folder: Path, keep: int = 2, on_saved: Callable[[], None] | None = None) -> None:
        self.folder, self.keep, self.on_saved = folder, keep, on_saved

    def save(self, iteration: int, state: State) -> Path:
        """`state`: tensors, numbers, strings and containers of these, as `torch.load(weights_only=True)` reads."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        path = self.folder / f"{iteration:08d}-{_digest(iteration, content)}.pt"
        write_atomic(path, content)
        log.info("saved checkpoint of iteration %d in %s, %.1f MB", iteration, self.folder, len(content) / 1e6)
        others = [other for other in self._newest_first() if other != path]
        # Later checkpoints are leftovers: this run would have begun there, had they not been damaged.
        later = [other for other in others if iteration_of(other) >= iteration]
        earlier = [other for other in others if other not in later]
        for old in [*later, *earlier[self.keep - 1 :]]:
            old.unlink(missing_ok=True)
        if self.on_saved:
            self.on_saved()
        return path

    def newest(self) -> Path | None:
        """The newest undamaged checkpoint; warns about each damaged one it passes over."""
        return next(self._undamaged(), None)

    def _undamaged(self) -> Iterator[Path]:
        for path in self._newest_first():
            try:
                name, content = _parse(path), path.read_bytes()
                # Names of earlier versions are of the content alone.
                if name["digest"] in (_digest(iteration_of(path), content), hashlib.sha256(content).hexdigest()):
                    yield path
                    continue
                problem = "is damaged"
            except OSError as error:
                problem = f"cannot be read ({error})"
            log.warning("checkpoint %s %s; trying the one before", path, problem)

    def latest(self) -> Saved | None:
        """The content of the newest undamaged one, with its tensors on the CPU."""
        for path in self._undamaged():
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # whoever knows how names are made may have written anything
                log.warning("checkpoint %s holds no state (%s); trying the one before", path, one_line(error))
                continue
            log.info("goes on from checkpoint %s", path)
            return Saved(iteration_of(path), state)
        return None

    def _newest_first(self) -> list[Path]:
        found = [path for path in self.folder.glob("*.pt") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.name, reverse=True)


def iteration_of(path: Path) -> int:
    """The iteration after which a checkpoint was made, by its name."""
    return int(_parse(path)["iteration"])


def _digest(iteration: int, content: bytes) -> str:
    digest = hashlib.sha256(b"%d " % iteration)
    digest.update(content)
    return digest.hexdigest()


def _parse(path: Path) -> re.Match[str]:
    match = _NAME.fullmatch(path.name)
    assert match
    return match
