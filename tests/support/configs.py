"""Configurations that finish in seconds."""

from pathlib import Path

from zskt_dist.config import Config, load_config

TINY = [
    "teacher.arch=lenet",
    "student.arch=lenet",
    "generator.channels=[8,4]",
    "generator.z_dim=8",
    "batch_size=8",
    "supervised.batch_size=16",
    "supervised.learning_rate=0.05",
    "transfer.student_steps=2",
    "tracking.uri=none",
    "tracking.log_every=2",
    "tracking.images=4",
    "evaluation.every=4",
    "evaluation.held_out_images=16",
    "evaluation.yardstick=false",
    "checkpoint.every=3",
    "iterations=10",
    "supervised.iterations=12",
    "launch.cpus_per_worker=1",
]
"""A LeNet pair on 8x8 digits; has no batch norm, so results do not depend on the number of workers.

One thread: layers are so small that more only wait for each other.
"""


def tiny_overrides(folder: Path, *overrides: str) -> list[str]:
    return [*TINY, f"runs_dir={folder / 'runs'}", *overrides]


def tiny_config(folder: Path, *overrides: str) -> Config:
    return load_config(None, tiny_overrides(folder, *overrides))
