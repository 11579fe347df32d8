"""Two processes of one thread against one process of two threads, at the same global batch.

Both do the product's own iteration and stay alive; one steps while the other waits. So the ratio is what data
parallelism costs where it adds no hardware: communication, smaller batches, and whatever is done twice.
`--json` also tells the bytes all-reduced in an iteration, as torch's profiler sees them, and as they should be.
`--synthesis` instead compares two processes of one thread with one of one thread, where an inversion makes its images:
what a second core brings.
"""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler

from benchmarks.measure import alternate, arguments, ratio, table, write
from benchmarks.ranks import Ranks
from benchmarks.subject import PAIR, configured, inversion_task, zero_shot_task
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.models import count_parameters


class Training:
    """One rank's part of a run."""

    def __init__(self, config: Config, world: World) -> None:
        self.task = zero_shot_task(config, world)
        self.done = 0

    def iterate(self, count: int) -> None:
        for _ in range(count):
            self.task.step(self.done)
            self.done += 1

    def parameters(self) -> dict[str, int]:
        return {name: count_parameters(engine.raw) for name, engine in self.task.engines.items()}

    def traffic(self) -> list[int]:
        """Bytes of each all-reduce in an iteration."""
        with profiler.profile(use_kineto=False, record_shapes=True) as record:
            self.iterate(1)
        shapes = [event.input_shapes[0] for event in record.function_events if event.name == "gloo:all_reduce"]
        return [4 * torch.Size(shape).numel() for shape in shapes]


class Synthesis:
    """One rank's part of the batches that an inversion makes."""

    def __init__(self, config: Config, world: World) -> None:
        self.task = inversion_task(config, world)
        self.done = 0
        self.images: dict[int, Tensor] = {}

    def make(self, count: int) -> None:
        for _ in range(count):
            with self.task.frozen_student() as student:
                made = self.task.inverter.make(self.task.draw(0, self.done), student)
            self.images = {part: images for part, (images, _) in made.items()}
            self.done += 1

    def last(self) -> dict[int, Tensor]:
        """This rank's parts of the batch that was made last."""
        return self.images


def measure_synthesis(config: Config, *, batches: int, repetitions: int, warm_up: int = 1) -> dict[str, Any]:
    """Medians over `repetitions`, each of so many batches; `ratio` is how many times faster two processes are."""
    make = partial(Synthesis, config)
    with Ranks(1, 1, make) as one, Ranks(2, 1, make) as two:
        times = alternate(
            {"one": partial(one, "make", batches), "two": partial(two, "make", batches)}, repetitions, warm_up
        )
    return {
        "pair": [config.teacher.arch, config.student.arch],
        "images": config.inversion.images,
        "steps": config.inversion.steps,
        "batches": batches,
        "repetitions": repetitions,
        "one_batches_per_second": batches / median(times["one"]),
        "two_batches_per_second": batches / median(times["two"]),
        "ratio": ratio(times, "one", "two"),
        "seconds": times,
    }


def measure(config: Config, *, iterations: int, repetitions: int, warm_up: int = 1) -> dict[str, Any]:
    """Medians over `repetitions`, each of `iterations` iterations."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler of the ranks says when it starts
    make = partial(Training, config)
    with Ranks(1, 2, make) as single, Ranks(2, 1, make) as ddp:
        sides = {"single": partial(single, "iterate", iterations), "ddp": partial(ddp, "iterate", iterations)}
        times = alternate(sides, repetitions, warm_up)
        traffic, parameters = ddp("traffic")[0], single("parameters")[0]
    return {
        "pair": [config.teacher.arch, config.student.arch],
        "batch_size": config.batch_size,
        "generator_steps": config.transfer.generator_steps,
        "student_steps": config.transfer.student_steps,
        "iterations": iterations,
        "repetitions": repetitions,
        "single_iterations_per_second": iterations / median(times["single"]),
        "ddp_iterations_per_second": iterations / median(times["ddp"]),
        "ratio": ratio(times, "single", "ddp"),
        "bytes_per_iteration": sum(traffic),
        "bytes_expected": bytes_expected(config, parameters["generator"], parameters["student"]),
        "all_reduces_per_iteration": len(traffic),
        "seconds": times,
    }


def bytes_expected(config: Config, generator: int, student: int) -> int:
    """Every step all-reduces the float32 gradients of the network it trains once, and nothing else."""
    return 4 * (config.transfer.generator_steps * generator + config.transfer.student_steps * student)


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, repetitions=5)
    parser.add_argument("--pair", nargs=2, default=PAIR, metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--batch", type=int, default=128, help="pseudo-images of both workers together")
    parser.add_argument("--student-steps", type=int, default=10, help="n_S")
    parser.add_argument("--iterations", type=int, default=2, help="of a measurement")
    parser.add_argument("--synthesis", action="store_true", help="of an inversion's images, against one thread")
    options = parser.parse_args(argv)
    if options.synthesis:
        _synthesis(options)
        return
    overrides = [f"batch_size={options.batch}", f"transfer.student_steps={options.student_steps}"]
    config = configured(*overrides, pair=options.pair)
    answer = measure(config, iterations=options.iterations, repetitions=options.repetitions)
    print(" → ".join(options.pair), f"batch {options.batch}, n_S = {options.student_steps}\n", sep=", ")
    rows = [
        ("1 process × 2 threads", f"{answer['single_iterations_per_second']:.3f} iterations/s"),
        ("2 processes × 1 thread", f"{answer['ddp_iterations_per_second']:.3f} iterations/s"),
        ("ratio", f"{answer['ratio']:.3f}"),
        ("all-reduced per iteration", f"{answer['bytes_per_iteration']:,} bytes"),
        ("closed form", f"{answer['bytes_expected']:,} bytes"),
        ("collectives per iteration", answer["all_reduces_per_iteration"]),
    ]
    print(table(("", "median"), rows))
    write(answer, options.json)


def _synthesis(options: argparse.Namespace) -> None:
    config = configured("method=inversion", pair=options.pair)
    answer = measure_synthesis(config, batches=options.iterations, repetitions=options.repetitions)
    images = f"{config.inversion.images} images, {config.inversion.steps} steps"
    print(" → ".join(options.pair), f"batches of {images}\n", sep=", ")
    rows = [
        ("1 process × 1 thread", f"{answer['one_batches_per_second']:.3f} batches/s"),
        ("2 processes × 1 thread", f"{answer['two_batches_per_second']:.3f} batches/s"),
        ("times faster", f"{answer['ratio']:.2f}"),
    ]
    print(table(("", "median"), rows))
    write(answer, options.json)


if __name__ == "__main__":
    main()
