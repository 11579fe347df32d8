"""Peak memory of zero-shot transfer by image size and pair, beside what `--dry-run` estimates.

Every point is a process of its own that does two iterations on the CPU, one step of each network, and tells how far
its resident memory rose above what it was before. `tensors` is with a malloc that gives every large block back at
once, so nothing but living tensors and the libraries' own buffers counts; `process` is with malloc as it comes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from zskt_dist.config import Config, load_config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.building import new_network
from zskt_dist.tasks.memory import estimate_memory
from zskt_dist.tasks.transfer import TransferTraining

MIB = 2**20
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**17), "MALLOC_TRIM_THRESHOLD_": str(2**17)}
"""For glibc: blocks of 128 KiB and more are mapped one by one, and unmapped when they are freed."""


@dataclass(frozen=True)
class Point:
    size: int
    classes: int
    teacher: str
    student: str
    batch: int
    micro_batch: int | None = None
    checkpointing: bool = False

    @property
    def shape(self) -> ImageShape:
        return ImageShape(3, self.size, self.size)

    @property
    def config(self) -> Config:
        return load_config(
            None,
            [
                f"teacher.arch={self.teacher}",
                f"student.arch={self.student}",
                f"batch_size={self.batch}",
                f"engine.micro_batch={self.micro_batch or 'null'}",
                f"engine.activation_checkpointing={str(self.checkpointing).lower()}",
                "transfer.student_steps=1",
                "device=cpu",
                "speed=plain",
            ],
        )


def default_points() -> Iterator[Point]:
    """Each pair as it is, with one switch, and with both."""
    for size, classes, teacher, student, batch in (
        (32, 10, "wrn-40-2", "wrn-16-1", 64),
        (64, 200, "wrn-40-2", "wrn-16-1", 16),
        (224, 1000, "torchvision:resnet50", "torchvision:resnet18", 8),
    ):
        for checkpointing in (False, True):
            for micro_batch in (None, batch // 4):
                yield Point(size, classes, teacher, student, batch, micro_batch, checkpointing)


def _build(arch: str, *arguments: Any) -> nn.Module:
    """As the registry; networks of torchvision have attention maps too, which their own code does not name."""
    network = build_network(arch, *arguments)
    if arch.startswith("torchvision:"):
        network.attention_layers = ("layer1", "layer2", "layer3", "layer4")  # type: ignore[assignment]
    return network


@contextmanager
def _torchvision() -> Iterator[None]:
    with mock.patch("zskt_dist.networks.building.build_network", _build):
        yield


def estimated(point: Point) -> int:
    """Bytes."""
    with _torchvision():
        return estimate_memory(point.config, point.shape, point.classes).total


def measured(point: Point, *, gives_back: bool) -> dict[str, float]:
    """`bytes` of resident memory above the start, and CPU `seconds` of the second iteration, in a new process."""
    environment = os.environ | (GIVES_BACK if gives_back else {})
    command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps(asdict(point))]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _child(point: Point) -> dict[str, float]:
    _iterations(Point(16, 2, "wrn-10-1", "wrn-10-1", 2), 1)  # what the libraries set up once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _resident("VmRSS")
    seconds = _iterations(point, 2)
    return {"bytes": _resident("VmHWM") - before, "seconds": seconds}


def _iterations(point: Point, count: int) -> float:
    """CPU seconds of the last one: others may use the machine too."""
    with _torchvision():
        teacher = new_network(point.config, "teacher", point.shape, point.classes).eval().requires_grad_(False)
        student = new_network(point.config, "student", point.shape, point.classes)
        task = TransferTraining(point.config, teacher, student, point.shape, World(torch.device("cpu")))
    for iteration in range(count):
        started = time.process_time()
        task.transfer.step(task.noise(iteration))
    return time.process_time() - started


def _resident(what: str) -> int:
    """Of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 224])
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_child(Point(**json.loads(options.child)))))
        return
    console, rows = Console(), []
    for point in default_points():
        if point.size in options.sizes:
            rows.append(_row(point, options.repetitions))
            print(json.dumps(rows[-1]), file=sys.stderr)
    console.print(_table(rows))
    if options.json:
        machine = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
        options.json.write_text(json.dumps({**machine, "repetitions": options.repetitions, "points": rows}, indent=2))


def _row(point: Point, repetitions: int) -> dict[str, Any]:
    tensors = [measured(point, gives_back=True)["bytes"] for _ in range(repetitions)]
    process = [measured(point, gives_back=False) for _ in range(repetitions)]
    return {
        **asdict(point),
        "estimate": estimated(point),
        "tensors": tensors,
        "process": [each["bytes"] for each in process],
        "seconds": [each["seconds"] for each in process],
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Peak memory of an iteration, MiB")
    for column in ("pair", "image", "batch", "micro", "recompute", "estimate", "tensors", "ratio", "process", "CPU s"):
        table.add_column(column, justify="left" if column == "pair" else "right")
    for row in rows:
        tensors, process, seconds = (sum(row[key]) / len(row[key]) for key in ("tensors", "process", "seconds"))
        table.add_row(
            f"{row['teacher']} → {row['student']}".replace("torchvision:", ""),
            str(row["size"]),
            str(row["batch"]),
            str(row["micro_batch"] or "–"),
            "yes" if row["checkpointing"] else "–",
            f"{row['estimate'] / MIB:.0f}",
            f"{tensors / MIB:.0f}",
            f"{row['estimate'] / tensors:.2f}",
            f"{process / MIB:.0f}",
            f"{seconds:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
