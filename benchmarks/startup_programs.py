"""Programs that `benchmarks.startup` starts: each does one thing that starting costs, and prints its parts as JSON.

Imports are part of what is measured: outside the functions there is the standard library only.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Seconds = dict[str, float]


class Stopwatch:
    """Seconds of one part after the other."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self._last = now


def iteration() -> Seconds:
    """One process of the digits run, from its imports to its second iteration."""
    watch = Stopwatch()
    import torch

    watch.lap("import torch")
    from benchmarks.subject import configured, zero_shot_task
    from zskt_dist.distributed.world import World
    from zskt_dist.models import ImageShape

    watch.lap("other imports")
    config = configured(name="digits", pair=("wrn-16-2", "wrn-10-1"))
    task = zero_shot_task(config, World(torch.device("cpu")), ImageShape(1, 8, 8))
    watch.lap("networks and engines")
    task.step(0)
    watch.lap("first iteration")
    task.step(1)
    watch.lap("second iteration")
    return watch.seconds


def group() -> Seconds:
    """A gloo group of this process and another, which it starts."""
    watch = Stopwatch()
    from torch import multiprocessing

    watch.lap("import torch")
    with tempfile.TemporaryDirectory() as folder:
        other = multiprocessing.get_context("spawn").Process(target=_join, args=(1, folder, Stopwatch()))
        other.start()
        _join(0, folder, watch)
        other.join()
    return watch.seconds


def _join(rank: int, folder: str, watch: Stopwatch) -> None:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    watch.lap("second process, group")
    dist.all_reduce(torch.ones(1))
    watch.lap("first all-reduce")
    dist.destroy_process_group()


def ray() -> Seconds:
    """A cluster of this machine, with a group of two workers that do nothing."""
    watch = Stopwatch()
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    watch.lap("import ray.train.torch")
    ray.init(logging_level="error")
    watch.lap("ray.init")
    with tempfile.TemporaryDirectory() as folder:

        def work() -> None:
            Path(folder, "working").touch()

        storage = RunConfig(storage_path=folder)
        started = time.time()
        TorchTrainer(work, scaling_config=ScalingConfig(num_workers=2), run_config=storage).fit()
        watch.lap("group of two workers, to its end")
        watch.seconds["of it until it works"] = Path(folder, "working").stat().st_mtime - started
    ray.shutdown()
    watch.lap("ray.shutdown")
    return watch.seconds


PROGRAMS: dict[str, Callable[[], Seconds]] = {"iteration": iteration, "group": group, "ray": ray}

if __name__ == "__main__":
    print(json.dumps(PROGRAMS[sys.argv[1]]()))
