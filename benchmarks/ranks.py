"""Processes that stay alive with what they hold: so groups of different sizes can be measured in turns."""

import os
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import current_process
from multiprocessing.connection import Connection
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import multiprocessing

from benchmarks.measure import count_in
from zskt_dist.distributed.world import World

Make = Callable[[World], Any]


class Ranks:
    """`size` processes of `threads` threads each; every one holds what `make` returns for its world.

    Those that are not asked anything wait for their pipe and take no time of the others.

    Args:
        patience: Seconds that a rank may take to answer; None: any time.
    """

    def __init__(self, size: int, threads: int, make: Make, patience: float | None = None) -> None:
        self.size, self._patience = size, patience
        self._folder = tempfile.TemporaryDirectory()
        # One process imports torch, and the ranks are forked off it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["zskt_dist.tasks.transfer"])
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            mine, theirs = context.Pipe()
            rendezvous = f"file://{self._folder.name}/rendezvous"
            about = (rank, size, threads, rendezvous, make, theirs, dict(os.environ))
            process = context.Process(target=_serve, args=about, name=f"rank {rank} of {size}", daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)
        self._answers()

    def __call__(self, method: str, *arguments: Any) -> list[Any]:
        """Calls the method of what each rank holds, on all of them together; their answers."""
        for pipe in self._pipes:
            pipe.send((method, arguments))
        return self._answers()

    def _answers(self) -> list[Any]:
        """Of all ranks, so that none is left for the next question.

        Raises:
            RuntimeError: a rank has failed.
            TimeoutError: a rank gave no answer.
        """
        received = [self._answer(rank, pipe) for rank, pipe in enumerate(self._pipes)]
        failures = [failure for _, failure in received if failure]
        if failures:
            raise RuntimeError("\n".join(failures))
        return [answer for answer, _ in received]

    def _answer(self, rank: int, pipe: Connection) -> tuple[Any, str | None]:
        if not pipe.poll(self._patience):
            raise TimeoutError(f"rank {rank} gave no answer")
        answer: tuple[Any, str | None] = pipe.recv()
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self._processes:
            if process.pid:
                count_in(process.pid)  # the fork server is their parent
            process.terminate()
            process.join()
        self._folder.cleanup()


def _serve(
    rank: int, size: int, threads: int, rendezvous: str, make: Make, pipe: Connection, environment: dict[str, str]
) -> None:
    os.environ |= environment | {"RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(threads)
    if size > 1:
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=size)
    held: list[Any] = []
    _answer(pipe, lambda: held.append(make(World.current(torch.device("cpu")))))
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:  # who asked has ended
            return
        _answer(pipe, partial(getattr(held[0], method), *arguments))


def _answer(pipe: Connection, call: Callable[[], Any]) -> None:
    """Sends what the call returns, and None, or None, and how it failed."""
    try:
        pipe.send((call(), None))
    except BaseException:  # pytest's own failures are no Exception
        pipe.send((None, f"{current_process().name}:\n{traceback.format_exc()}"))
