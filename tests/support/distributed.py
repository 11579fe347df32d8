"""Two gloo processes that stay alive for a test session and run functions together."""

import os
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from zskt_dist.runtime.world import World

Rank = Callable[..., Any]


class Ranks:
    """A gloo group of `size` processes; importing torch is paid for once, not in every test."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, self._folder.name, theirs), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)

    def run(self, function: Rank, *args: Any) -> list[Any]:
        """`function(world, *args)` on every rank; what each rank returned. A failing rank fails the caller."""
        for pipe in self._pipes:
            pipe.send((function, args))
        answers = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(timeout=180):
                raise TimeoutError(f"rank {rank} gave no answer")
            ok, answer = pipe.recv()
            assert ok, f"rank {rank}:\n{answer}"
            answers.append(answer)
        return answers

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
        self._folder.cleanup()


def _serve(rank: int, size: int, folder: str, pipe: Connection) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{Path(folder, 'rendezvous')}", rank=rank, world_size=size)
    while True:
        function, args = pipe.recv()
        torch.manual_seed(0)
        try:
            pipe.send((True, function(World.current(torch.device("cpu")), *args)))
        except BaseException:  # pytest's own failures are no Exception
            pipe.send((False, traceback.format_exc()))
