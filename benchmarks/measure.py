"""What the benchmarks share: alternated timing, the machine and its peaks, and the answer as JSON and Markdown.

A machine that others use is never quiet. So what is compared is measured in turns, in one run, and what is said
is a median, or a median of ratios of neighbours.
"""

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from zskt_dist.files import write_json

_STARTED = time.perf_counter()
_of_others: list[float] = []
"""CPU-seconds of processes that worked for this one and are no children of it."""

Times = dict[str, list[float]]
"""Seconds of every measurement, by name; those at the same position were taken after one another."""


def alternate(functions: Mapping[str, Callable[[], object]], repetitions: int, warm_up: int = 1) -> Times:
    """Times each function `repetitions` times, all of them in turn; the order is reversed every other time.

    Args:
        warm_up: Calls of each before that are not timed.
    """
    times: Times = {name: [] for name in functions}
    for _ in range(warm_up):
        for function in functions.values():
            function()
    for repetition in range(repetitions):
        for name in list(functions)[:: 1 if repetition % 2 == 0 else -1]:
            times[name].append(seconds(functions[name]))
    return times


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def synchronise() -> None:
    """Waits until a GPU, where there is one, has done all it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(times: Times, numerator: str, denominator: str) -> float:
    """Median of the ratios of neighbours: what slows both down for a while cancels out."""
    return median(a / b for a, b in zip(times[numerator], times[denominator], strict=True))


def effort() -> dict[str, Any]:
    """What this process, its children and its ranks have spent, and whether others kept the machine busy meanwhile.

    `others` is the number of cores that others wanted in the last minute: the load without what this process used.
    """
    wall = time.perf_counter() - _STARTED
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages) + sum(_of_others)
    others = max(0.0, os.getloadavg()[0] - cpu / wall)
    return {"wall_seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "others": round(others, 2)}


def count_in(process: int) -> None:
    """Adds to the effort what a process that is about to end has spent; nothing where the system does not say it."""
    status = Path(f"/proc/{process}/stat")
    if status.exists():
        ticks = status.read_text().rpartition(")")[2].split()[11:13]
        _of_others.append(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))


def machine() -> dict[str, Any]:
    """What a figure needs beside it; `load` is of the last minute."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes with `count` threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def tensor_cores(on: bool) -> Iterator[None]:
    """Whether float32 products are rounded to TF32 in the block; torch's own default is: convolutions only."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def fresh_compiler() -> None:
    """Forgets what was compiled; from now on it is an error where a function would be computed uncompiled.

    Networks of one class share a cache, and beyond its limit torch gives up with no more than a warning.
    """
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def convolution_peak(
    count: int, *, channels: Sequence[int] = (32, 64, 128), batch: int = 64, repetitions: int = 10
) -> float:
    """GFLOP/s of `count` threads: the best of repeated convolutions."""
    cpu = torch.device("cpu")
    with threads(count), torch.no_grad():
        return max(convolution_gflops(width, batch, device=cpu, repetitions=repetitions) for width in channels)


def matrix_product_gflops(
    size: int, *, dtype: torch.dtype = torch.float32, device: torch.device, calls: int = 1, repetitions: int = 5
) -> float:
    """GFLOP/s of products of square matrices; the arguments are those of `_fastest`."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _fastest(partial(torch.mm, a, b), calls, repetitions) / 1e9


def convolution_gflops(
    width: int,
    batch: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device,
    calls: int = 1,
    repetitions: int = 5,
) -> float:
    """GFLOP/s of 3x3 convolutions, sized as in WRNs of width 2: 32 channels on 32x32 pixels, 128 on 8x8."""
    size = min(32, 1024 // width)
    x = torch.randn(batch, width, size, size, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(width, width, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    work = 2 * 9 * width**2 * size**2 * batch
    return work / _fastest(partial(functional.conv2d, x, weight, padding=1), calls, repetitions) / 1e9


def _fastest(function: Callable[[], object], calls: int, repetitions: int) -> float:
    """Seconds of a call: the fewest of `repetitions`, each of several calls that the host does not wait for."""

    def many() -> None:
        for _ in range(calls):
            function()
        synchronise()

    many()
    return min(seconds(many) for _ in range(repetitions)) / calls


def arguments(description: str | None, *, repetitions: int) -> argparse.ArgumentParser:
    """A parser of what every benchmark understands; each adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=repetitions, help="of each measurement, alternated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    return parser


def write(answer: Mapping[str, Any], path: Path | None) -> None:
    """Says what the numbers took; where there is a path, writes them with that and the machine, as JSON."""
    spent = effort()
    quiet = "" if spent["others"] < 0.5 else f"; the machine was not quiet: others wanted {spent['others']} cores"
    print(f"{spent['cpu_seconds']:.0f} CPU-seconds in {spent['wall_seconds']:.0f} s{quiet}", file=sys.stderr)
    if path is not None:
        write_json(path, {"machine": machine(), "effort": spent, **answer})


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, to be pasted into the docs: the first column to the left, numbers to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
