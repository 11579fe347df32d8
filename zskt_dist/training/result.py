"""The content of `result.json` for a run that has just been trained."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

import torch

from zskt_dist.distributed.world import World
from zskt_dist.runs.result import (
    Command,
    Estimates,
    LabelledImages,
    Launcher,
    LayerPair,
    MlflowRun,
    RunResult,
    StudentResult,
    TeacherResult,
    YardstickResult,
)
from zskt_dist.tasks.base import Training
from zskt_dist.tasks.stages import Stage
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Outcome


class Size(NamedTuple):
    """How large a network is; see `TeacherResult`."""

    params: int
    multiply_adds: int


def build_result(
    job: Job,
    stage: Stage,
    world: World,
    outcome: Outcome,
    training: Training,
    *,
    sizes: Mapping[str, Size],
    teacher_accuracy: float | None,
    sha256: str,
    num_classes: int,
    test_images: LabelledImages | None,
    yardstick: YardstickResult | None,
    answers: Mapping[str, str],
) -> RunResult:
    """The result of a stage.

    Args:
        sizes: Of each network, by role; a student may have learnt without a teacher.
        sha256: SHA-256 of the trained network's weights.
        answers: What networks that are not ours were found to answer, by role.
    """
    config, scores, task, directory = stage.config, outcome.scores, stage.task, stage.directory
    teacher: TeacherResult | None = None
    if "teacher" in sizes:
        size = sizes["teacher"]
        teacher = {
            "arch": config.teacher.arch,
            "params": size.params,
            "multiply_adds": size.multiply_adds,
            "accuracy": teacher_accuracy,
        }
    student: StudentResult | None = None
    if task.role == "student":
        size = sizes["student"]
        student = {
            "arch": config.student.arch,
            "params": size.params,
            "multiply_adds": size.multiply_adds,
            "accuracy_last": scores.accuracy if scores else None,
            "accuracy_best": outcome.accuracy_best,
            "agreement": scores.agreement if scores else None,
            "sha256": sha256,
        }
    for role, entry in (("teacher", teacher), ("student", student)):
        if entry and role in answers:
            entry["answers"] = answers[role]
    return {
        "status": "finished",
        "command": cast(Command, task.command),
        "method": config.method if task.name in ("transfer", "inversion") else None,
        "experiment": directory.path.parent.name,
        "name": directory.path.name,
        "config_hash": stage.hash,
        "git_commit": job.git_commit,
        "launcher": cast(Launcher, job.launcher),
        "engine": config.engine.kind,
        "world_size": world.size,
        "device": str(world.device),
        "speed": training.speed,
        "attention": cast(list[LayerPair], training.attention.as_json()) if training.attention else None,
        "seed": config.seed,
        "dataset": config.data.name if config.data.name != "parquet" else Path(config.data.root).name,
        "num_classes": num_classes,
        "images_per_class": task.images_per_class(config),
        "iterations": training.iterations,
        "resumed_from": outcome.resumed_from,
        "seconds": round(outcome.seconds, 2),
        "iterations_per_second": round(outcome.iterations_per_second, 3),
        "peak_memory_bytes": peak_memory_bytes(world.device),
        "teacher": teacher,
        "student": student,
        "test_images": test_images,
        "seed_images": training.seed_images,
        "yardstick": yardstick,
        "estimates": cast(Estimates, outcome.estimates) or None,
        "mte": None,
        "mlflow": cast(MlflowRun | None, job.tracking if stage is job.goal else None),
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory in use so far: on CUDA that of the device's allocator, else that of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
