"""Two gloo processes that stay alive for a test session and run functions together."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import ranks
from zskt_dist.distributed.world import World

Rank = Callable[..., Any]


class Ranks(ranks.Ranks):
    """A gloo group of `size` processes; importing torch is paid for once, not in every test."""

    def __init__(self, size: int) -> None:
        super().__init__(size, 1, _Runner, patience=180)

    def run(self, function: Rank, *args: Any) -> list[Any]:
        """`function(world, *args)` on every rank; what each rank returned. A failing rank fails the caller."""
        return self("run", function, args)


class _Runner:
    def __init__(self, world: World) -> None:
        self.world, self._imported = world, 0

    def run(self, function: Rank, args: tuple[Any, ...]) -> Any:
        torch.manual_seed(0)
        if len(sys.modules) > self._imported:  # DeepSpeed collects at each start: half a second for all of them
            gc.collect()
            gc.freeze()
            self._imported = len(sys.modules)
        return function(self.world, *args)
