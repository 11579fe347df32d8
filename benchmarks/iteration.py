"""An iteration against the authors' schedule of it, and against what the machine can do.

Every variant is the product's own task from the same configuration; all are measured in turns, in one process. What is
said to be ours is the variant that `speed: auto` fast_paths for a run of full length on this device.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.authors import AuthorsSchedule
from benchmarks.measure import (
    Times,
    alternate,
    arguments,
    convolution_peak,
    fresh_compiler,
    ratio,
    synchronise,
    table,
    tensor_cores,
    write,
)
from benchmarks.subject import PAIR, SHAPE, configured, student, teacher
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.networks.building import new_generator
from zskt_dist.speed import FastPaths, choose_fast_paths
from zskt_dist.tasks.transfer import TransferTraining

TABLE_1 = (
    ("wrn-16-2", "wrn-16-1"),
    ("wrn-40-1", "wrn-16-1"),
    ("wrn-40-2", "wrn-16-1"),
    ("wrn-40-1", "wrn-16-2"),
    ("wrn-40-2", "wrn-16-2"),
    ("wrn-40-2", "wrn-40-1"),
)
_SIDE, _PRODUCTS = 2048, 10
PLAIN = FastPaths(False, False, False, False, False, None)


class Form(NamedTuple):
    """A way to compute an iteration."""

    fast_paths: FastPaths
    tf32: bool
    """Whether products of float32 numbers may be rounded, in matrix products and convolutions."""


class Ours:
    """The product's iteration in one of its forms, on one noise after the other.

    Args:
        tf32: As in `Form`; None: torch's default, which is convolutions only.
    """

    def __init__(self, config: Config, fast_paths: FastPaths, device: torch.device, tf32: bool | None = None) -> None:
        self._tf32 = tf32
        networks = teacher(config).to(device), student(config)
        self._task = TransferTraining(config, *networks, SHAPE, World(device), fast_paths=fast_paths)
        self._done = 0

    def step(self) -> None:
        with nullcontext() if self._tf32 is None else tensor_cores(self._tf32):
            self._task.step(self._done)
        self._done += 1
        synchronise()

    def gflop(self) -> float:
        """Of an iteration: matrix products and convolutions that are done, multiplications and additions apart."""
        with FlopCounterMode(display=False) as counter:
            self._task.transfer.learn(self._task.noise(0))
        return counter.get_total_flops() / 1e9


def authors(config: Config, device: torch.device) -> Callable[[], None]:
    """Their iteration, from the same initial weights as ours."""
    schedule = AuthorsSchedule(
        new_generator(config, SHAPE).to(device),
        student(config).to(device),
        teacher(config).to(device).requires_grad_(True),
        student_steps=config.transfer.student_steps,
    )

    def step() -> None:
        schedule.step(torch.randn(config.batch_size, config.generator.z_dim, device=device))
        synchronise()

    return step


def measure(
    config: Config,
    device: torch.device,
    *,
    repetitions: int,
    forms: Mapping[str, Form] | None = None,
) -> dict[str, Any]:
    """Seconds of an iteration in each form, medians over `repetitions`.

    Args:
        forms: Further ones, by name.
    """
    fresh_compiler()
    fast = choose_fast_paths(config, device, lambda: float("inf"), 1)
    modes = {
        mode: config.model_copy(update={"transfer": config.transfer.model_copy(update={"pseudo_batch": mode})})
        for mode in ("post_update", "pre_update")
    }
    variants = {
        "post_update_plain": Ours(modes["post_update"], PLAIN, device),
        "post_update_uncompiled": Ours(modes["post_update"], replace(fast, compile=False), device),
        "post_update": Ours(modes["post_update"], fast, device),
        "pre_update": Ours(modes["pre_update"], fast, device),
    }
    variants |= {
        name: Ours(modes["post_update"], form.fast_paths, device, form.tf32) for name, form in (forms or {}).items()
    }
    gflop = Ours(modes["post_update"], replace(fast, compile=False, cuda_graphs=False), device).gflop()
    functions: dict[str, Callable[[], object]] = {"reference": authors(config, device)}
    functions |= {name: variant.step for name, variant in variants.items()}
    functions["product"] = partial(_products, device)
    warm_up = 6 if device.type == "cuda" else 2  # on CUDA the fourth is recorded
    times = alternate(functions, repetitions, warm_up)
    return _answer(config, fast, times, gflop, device)


def _products(device: torch.device) -> None:
    """What the device does best, in turns with the iterations: a busy machine is slower at both."""
    a, b = (torch.ones(_SIDE, _SIDE, device=device) for _ in range(2))
    for _ in range(_PRODUCTS):
        torch.mm(a, b)
    synchronise()


def _answer(config: Config, fast: FastPaths, times: Times, gflop: float, device: torch.device) -> dict[str, Any]:
    seconds = {name: median(values) for name, values in times.items()}
    product = _PRODUCTS * 2 * _SIDE**3 / 1e9
    iterations = [name for name in times if name not in ("reference", "product")]
    return {
        "pair": [config.teacher.arch, config.student.arch],
        "batch_size": config.batch_size,
        "student_steps": config.transfer.student_steps,
        "device": str(device),
        "fast_paths": str(fast),
        "repetitions": len(times["reference"]),
        "reference_seconds": seconds["reference"],
        **{f"{name}_seconds": seconds[name] for name in iterations},
        **{f"ratio_{name}": ratio(times, "reference", name) for name in iterations},
        "gflop_per_iteration": gflop,
        "achieved_gflops": gflop / seconds["post_update"],
        "peak_gflops": product / seconds["product"],
        "fraction_of_peak": ratio(times, "product", "post_update") * gflop / product,
        "peak_convolution_gflops": convolution_peak(torch.get_num_threads()) if device.type == "cpu" else None,
        "seconds": times,
    }


def _rows(answer: dict[str, Any]) -> list[list[object]]:
    names = [name.removeprefix("ratio_") for name in answer if name.startswith("ratio_")]
    rows: list[list[object]] = [["authors' schedule", f"{answer['reference_seconds']:.2f}", ""]]
    return rows + [
        [name.replace("_", " "), f"{answer[f'{name}_seconds']:.2f}", f"{answer[f'ratio_{name}']:.2f}"] for name in names
    ]


def main(arguments_: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, repetitions=5)
    parser.add_argument("--pair", nargs=2, default=PAIR, metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--table-1", action="store_true", help="all pairs of the paper's Table 1; --json gets a list")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--student-steps", type=int, default=10)
    options = parser.parse_args(arguments_)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    answers = []
    for pair in TABLE_1 if options.table_1 else (options.pair,):
        settings = (f"batch_size={options.batch}", f"transfer.student_steps={options.student_steps}")
        answers.append(measure(configured(*settings, pair=pair), device, repetitions=options.repetitions))
        print(f"\n{' -> '.join(pair)}, batch {options.batch}, {device}: {answers[-1]['fast_paths']}\n")
        print(table(["iteration", "seconds", "times faster"], _rows(answers[-1])))
        _print_share(answers[-1])
    write(answers[0] if len(answers) == 1 else {"pairs": answers}, options.json)


def _print_share(answer: dict[str, Any]) -> None:
    text = f"\n{answer['gflop_per_iteration']:.0f} GFLOP in an iteration, {answer['achieved_gflops']:.0f} GFLOP/s"
    print(f"{text}: {answer['fraction_of_peak']:.0%} of matrix products', {answer['peak_gflops']:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
