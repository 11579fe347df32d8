"""`result.json`, the machine-readable answer of every command."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zskt_dist.runs.directory import RunDirectory
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Outcome, Task
from zskt_dist.distributed.world import World

Result = dict[str, Any]


def build_result(
    job: Job,
    world: World,
    outcome: Outcome,
    task: Task,
    *,
    params: Mapping[str, int],
    teacher_accuracy: float | None,
    sha256: str | None,
    num_classes: int,
) -> Result:
    """All keys of DESIGN's `result.json`; accuracies are fractions, `accuracy_last` is the headline.

    Args:
        params: Parameters of the networks that took part, by role; a student may have learnt without a teacher.
        sha256: Of the student's weights; None where the teacher itself was trained.
    """
    config, scores = job.config, outcome.scores
    directory = RunDirectory(job.directory)
    return {
        "status": "finished",
        "command": job.command,
        "experiment": directory.path.parent.name,
        "name": directory.path.name,
        "config_hash": job.config_hash,
        "git_commit": job.git_commit,
        "launcher": job.launcher,
        "engine": config.engine.kind,
        "world_size": world.size,
        "device": str(world.device),
        "speed": task.speed,
        "attention": task.attention.as_json() if task.attention else None,
        "seed": config.teacher_seed if sha256 is None else config.seed,
        "dataset": config.data.name if config.data.name != "parquet" else Path(config.data.root).name,
        "num_classes": num_classes,
        "images_per_class": None if job.command == "train" or sha256 is None else config.data.images_per_class,
        "iterations": task.iterations,
        "resumed_from": outcome.resumed_from,
        "seconds": round(outcome.seconds, 2),
        "iterations_per_second": round(outcome.iterations_per_second, 3),
        "peak_memory_bytes": peak_memory_bytes(world.device),
        "teacher": {"arch": config.teacher.arch, "params": params["teacher"], "accuracy": teacher_accuracy}
        if "teacher" in params
        else None,
        "student": sha256
        and {
            "arch": config.student.arch,
            "params": params["student"],
            "accuracy_last": scores and scores.accuracy,  # null without test images, as all that is measured on them
            "accuracy_best": outcome.accuracy_best,  # on the test images along the way; never the result
            "agreement": scores and scores.agreement,
            "sha256": sha256,
        },
        "estimates": outcome.estimates or None,
        "mte": None,
        "mlflow": job.tracking,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory in use so far: of the device's allocator on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
