"""`result.json`, the machine-readable answer of every command."""

import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zskt_dist.config import Config
from zskt_dist.models import count_parameters
from zskt_dist.runtime.job import Job
from zskt_dist.runtime.loop import Outcome
from zskt_dist.runtime.world import World

Result = dict[str, Any]


def build_result(
    job: Job,
    world: World,
    outcome: Outcome,
    iterations: int,
    *,
    teacher: Result,
    student: Result | None,
) -> Result:
    """All keys of DESIGN's `result.json`; accuracies are fractions, `accuracy_last` is the headline."""
    config = job.config
    return {
        "status": "finished",
        "command": job.command,
        "experiment": config.experiment,
        "name": Path(job.directory).name,
        "config_hash": job.config_hash,
        "git_commit": job.git_commit,
        "launcher": job.launcher,
        "engine": config.engine.kind,
        "world_size": world.size,
        "device": str(world.device),
        "iterations": iterations,
        "resumed_from": outcome.resumed_from,
        "seconds": round(outcome.seconds, 2),
        "iterations_per_second": round(outcome.iterations_per_second, 3),
        "peak_memory_bytes": peak_memory_bytes(world.device),
        "teacher": teacher,
        "student": student,
        "mte": None,
        "mlflow": job.tracking,
    }


def teacher_entry(config: Config, network: nn.Module, accuracy: float | None) -> Result:
    return {"arch": config.teacher.arch, "params": count_parameters(network), "accuracy": accuracy}


def student_entry(config: Config, network: nn.Module, outcome: Outcome, sha256: str) -> Result:
    """`accuracy_best` is the best on the test images along the way, recorded and never the result."""
    return {
        "arch": config.student.arch,
        "params": count_parameters(network),
        "accuracy_last": outcome.scores.accuracy,
        "accuracy_best": outcome.accuracy_best,
        "agreement": outcome.scores.agreement,
        "sha256": sha256,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory in use so far: of the device's allocator on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
