"""Which device and how many CPU threads a worker gets."""

import os

import torch

from zskt_dist.config import Config
from zskt_dist.errors import ConfigError


def worker_device(config: Config, local_rank: int) -> torch.device:
    """The device of the worker numbered `local_rank` on this machine.

    Raises:
        ConfigError: the device is CUDA, and there are fewer GPUs than workers.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "cpu" or (config.device == "auto" and available < local_workers(config)):
        return torch.device("cpu")
    if available <= local_rank:
        raise ConfigError(
            "device",
            "cuda",
            f"this machine has {available} usable GPUs, none for worker {local_rank}; use cpu or auto",
        )
    return torch.device("cuda", local_rank)


def threads_per_worker(config: Config) -> int:
    """CPU threads of a local worker: as configured, else OMP_NUM_THREADS, else the usable cores, shared evenly."""
    if config.launch.cpus_per_worker:
        return config.launch.cpus_per_worker
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0 and "LOCAL_WORLD_SIZE" not in os.environ:  # torchrun sets it to 1
        return int(limit)
    return max(1, usable_cores() // local_workers(config))


def local_workers(config: Config) -> int:
    """Workers on this machine; under torchrun, which may start others elsewhere, its own number counts."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", config.launch.most_workers))


def usable_cores() -> int:
    """Cores this process may run on (a container or a scheduler may grant fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
