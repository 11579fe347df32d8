"""Does a run fit into the memory of this machine, and if not, which settings would make it fit?"""

import os
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import torch

from zskt_dist.config import Config
from zskt_dist.files import describe_size
from zskt_dist.launch.devices import local_workers, worker_device
from zskt_dist.launch.environment import ray_cluster_given
from zskt_dist.models import ImageShape
from zskt_dist.tasks.memory import Memory, estimate_memory

Settings = dict[str, Any]
"""Keys of the section `engine`."""


def describe_memory(memory: Memory, config: Config) -> str:
    """One line with the peak and its parts."""
    parts = ("teacher", "student", "generator", *(("pool",) if memory.pool else ()))
    sizes = {name: getattr(memory, name) for name in parts}
    networks = ", ".join(f"{name} {describe_size(size)}" for name, size in sizes.items())
    step = "generator" if memory.generator_step >= memory.student_step else "student"
    activations = f"activations {describe_size(memory.activations)} (in the {step} step)"
    shared = "; counted whole, ZeRO shares them out" if config.engine.kind == "deepspeed" else ""
    total = f"about {describe_size(memory.total)} per worker, on top of Python and torch"
    return f"{total}: {networks}, {activations}{shared}"


def lack_of_memory(config: Config, image_shape: ImageShape, num_classes: int, memory: Memory) -> str | None:
    """What to do where less memory is free than `memory`; None where it fits, or where that is not known."""
    free = free_memory(config)
    if free is None or memory.total <= free or config.engine.kind == "deepspeed":
        return None

    def needed(settings: Settings) -> Memory:
        return estimate_memory(_with(config, settings), image_shape, num_classes)

    advice = "no setting of engine.micro_batch and engine.activation_checkpointing would change that"
    for settings in _remedies(config, memory, free, needed):
        if (total := needed(settings).total) <= free:
            keys = " ".join(f"engine.{key}={str(value).lower()}" for key, value in settings.items())
            advice = f"with {keys} it would be about {describe_size(total)}"
            break
    return f"about {describe_size(memory.total)} per worker, and {describe_size(free)} are free; {advice}"


def _remedies(config: Config, memory: Memory, free: int, needed: Callable[[Settings], Memory]) -> Iterator[Settings]:
    """Settings to try: first those that leave the result as it is; never sizes that are far too large."""
    size = config.engine.micro_batch or ceil(config.batch_size / config.launch.fewest_workers)
    if not config.engine.activation_checkpointing:
        yield {"activation_checkpointing": True}
    yield from ({"micro_batch": half} for half in _halves(size, memory, free))
    if not config.engine.activation_checkpointing:
        memory = needed({"activation_checkpointing": True})
        yield from ({"activation_checkpointing": True, "micro_batch": half} for half in _halves(size, memory, free))


def _halves(size: int, memory: Memory, free: int) -> Iterator[int]:
    """Micro-batches of half the size, a quarter and so on that would fit if activations shrink in proportion."""
    for shift in range(1, size.bit_length()):
        if memory.networks + memory.activations * (size >> shift) / size <= free:
            yield size >> shift


def _with(config: Config, settings: Settings) -> Config:
    return config.model_copy(update={"engine": config.engine.model_copy(update=settings)})


def free_memory(config: Config) -> int | None:
    """Bytes that a worker may take on this machine; None where workers run elsewhere, or where it is not known."""
    if config.launch.kind == "ray" and ray_cluster_given():
        return None
    device = worker_device(config, 0)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = free_host_memory()
    return free // local_workers(config) if free is not None else None


def free_host_memory() -> int | None:
    """Bytes that are free on this machine, and in the container where there is one; None where it is not known."""
    return min((size for size in (_free_in_machine(), _free_in_container()) if size is not None), default=None)


def _free_in_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    available = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return int(available.split()[1]) * 1024 if available else None


def _free_in_container() -> int | None:
    """Bytes free in a control group (version 2) with a limit; its caches count as free."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return int(limit) - int(used) + int(statistics.get("inactive_file", 0))
