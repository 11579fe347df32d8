"""Processes that stay alive with what they hold: so groups of different sizes can be measured in turns."""

import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import multiprocessing

from zskt_dist.runtime.world import World

Make = Callable[[World], Any]


class Ranks:
    """`size` processes of `threads` threads each; every one holds what `make` returns for its world.

    Those that are not asked anything wait for their pipe and take no time of the others.
    """

    def __init__(self, size: int, threads: int, make: Make) -> None:
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            mine, theirs = context.Pipe()
            rendezvous = f"file://{self._folder.name}/rendezvous"
            process = context.Process(target=_serve, args=(rank, size, threads, rendezvous, make, theirs), daemon=True)
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
        answers = []
        for pipe in self._pipes:
            answer, failure = pipe.recv()
            if failure:
                raise RuntimeError(failure)
            answers.append(answer)
        return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
        self._folder.cleanup()


def _serve(rank: int, size: int, threads: int, rendezvous: str, make: Make, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    if size > 1:
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=size)
    try:
        held = make(World.current(torch.device("cpu")))
        pipe.send((None, None))
        while True:
            method, arguments = pipe.recv()
            pipe.send((getattr(held, method)(*arguments), None))
    except EOFError:  # the benchmark has ended
        pass
    except BaseException:
        pipe.send((None, f"rank {rank} of {size}:\n{traceback.format_exc()}"))
