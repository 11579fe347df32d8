"""What a training has made, as `result.json`."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zskt_dist.distributed.world import World
from zskt_dist.tasks.base import Training
from zskt_dist.tasks.stages import Stage
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Outcome

Result = dict[str, Any]


def build_result(
    job: Job,
    stage: Stage,
    world: World,
    outcome: Outcome,
    training: Training,
    *,
    parameters: Mapping[str, int],
    teacher_accuracy: float | None,
    sha256: str,
    num_classes: int,
) -> Result:
    """The result of a stage; accuracies are fractions, `accuracy_last` is the headline.

    Args:
        parameters: Of the networks that took part, by role; a student may have learnt without a teacher.
        sha256: Of the trained network's weights.
    """
    config, scores, task, directory = stage.config, outcome.scores, stage.task, stage.directory
    student = {
        "arch": config.student.arch,
        "params": parameters.get("student"),
        "accuracy_last": scores and scores.accuracy,  # null without test images, as all that is measured on them
        "accuracy_best": outcome.accuracy_best,  # on the test images along the way; never the result
        "agreement": scores and scores.agreement,
        "sha256": sha256,
    }
    teacher = {"arch": config.teacher.arch, "params": parameters.get("teacher"), "accuracy": teacher_accuracy}
    return {
        "status": "finished",
        "command": task.command,
        "experiment": directory.path.parent.name,
        "name": directory.path.name,
        "config_hash": stage.hash,
        "git_commit": job.git_commit,
        "launcher": job.launcher,
        "engine": config.engine.kind,
        "world_size": world.size,
        "device": str(world.device),
        "speed": training.speed,
        "attention": training.attention.as_json() if training.attention else None,
        "seed": config.seed,
        "dataset": config.data.name if config.data.name != "parquet" else Path(config.data.root).name,
        "num_classes": num_classes,
        "images_per_class": task.images_per_class(config),
        "iterations": training.iterations,
        "resumed_from": outcome.resumed_from,
        "seconds": round(outcome.seconds, 2),
        "iterations_per_second": round(outcome.iterations_per_second, 3),
        "peak_memory_bytes": peak_memory_bytes(world.device),
        "teacher": teacher if "teacher" in parameters else None,
        "student": student if task.role == "student" else None,
        "estimates": outcome.estimates or None,
        "mte": None,
        "mlflow": job.tracking if stage is job.goal else None,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory in use so far: of the device's allocator on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
