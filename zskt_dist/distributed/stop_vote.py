"""Stop requests: all workers leave the loop after the same iteration."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from zskt_dist.distributed.world import World
from zskt_dist.errors import announce_stop

_FILE_POLL_SECONDS = 0.2


class StopVote:
    """Agreement of all workers on when to stop.

    A worker votes to stop once it gets SIGTERM or SIGINT, or once `stop_file` exists (a launcher on
    another machine creates it). Each iteration's vote is sent while the next one computes,
    so it costs no waiting.

    Args:
        asked: Another source of stop requests; called once per iteration.
    """

    def __init__(self, world: World, stop_file: Path | None = None, asked: Callable[[], bool] = lambda: False) -> None:
        self._world, self._file, self._asked = world, stop_file, asked
        self._wanted = False
        self._next_poll = 0.0
        self._vote: tuple[torch.Tensor, dist.Work] | None = None

    @contextmanager
    def listening(self, *signals: signal.Signals) -> Iterator["StopVote"]:
        """Catches these signals, by default SIGTERM and SIGINT, if this is the main thread."""
        previous = {}
        try:
            for number in signals or (signal.SIGTERM, signal.SIGINT):
                previous[number] = signal.signal(number, self._on_signal)
        except ValueError:
            pass  # not the main thread: Ray's workers are stopped through the file
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @property
    def wanted(self) -> bool:
        """True if this worker itself has a stop request."""
        if self._file_exists() or self._asked():  # a signal may come meanwhile
            self._wanted = True
        return self._wanted

    def close(self) -> None:
        """Completes the current vote; every worker calls this after its last iteration."""
        if self._vote is not None:
            self._vote[1].wait()
            self._vote = None

    def agreed(self) -> bool:
        """True if all workers leave now; every worker calls this once per iteration."""
        if self._world.size == 1:
            return self.wanted
        last = self._vote
        ballot = torch.tensor(float(self.wanted))
        work = dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=self._world.control, async_op=True)
        assert work is not None
        self._vote = (ballot, work)
        if last is None:
            return False
        last[1].wait()
        return bool(last[0].item())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._wanted and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C: leave at once, without saving
        # A worker with a parent process leaves the announcement to it.
        if self._world.is_main and not self._wanted and multiprocessing.parent_process() is None:
            announce_stop()
        self._wanted = True

    def _file_exists(self) -> bool:
        if self._file is None or not self._world.is_main or time.monotonic() < self._next_poll:
            return False
        self._next_poll = time.monotonic() + _FILE_POLL_SECONDS
        return self._file.exists()
