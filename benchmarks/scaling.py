"""Scaling on paper: a model fitted to one process and to bare all-reduces, checked against two processes.

Then the same model for 8, 64 and 512 GPUs, with the assumptions of `benchmarks.scaling_gpu`: a prediction, and
no measurement. `--figure FILE` draws both.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from benchmarks import scaling_gpu
from benchmarks.data_parallel import Training
from benchmarks.measure import alternate, arguments, fresh_compiler, table, write
from benchmarks.ranks import Ranks
from benchmarks.scaling_model import Cluster, Compute, Link, Setting
from benchmarks.subject import PAIR, configured
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.files import write_atomic_with


class Trainings:
    """One rank's part of a run of each batch size."""

    def __init__(self, configs: dict[int, Config], world: World) -> None:
        fresh_compiler()
        self.of_batch = {batch: Training(config, world) for batch, config in configs.items()}

    def iterate(self, batch: int) -> None:
        self.of_batch[batch].iterate(1)

    def sizes(self) -> tuple[int, int]:
        """Bytes of the gradients of generator and student."""
        parameters = next(iter(self.of_batch.values())).parameters()
        return 4 * parameters["generator"], 4 * parameters["student"]

    def all_reduce(self, size: int, count: int) -> float:
        """Seconds of one all-reduce of `size` bytes, the mean of `count`."""
        gradient = torch.zeros(size // 4)
        dist.barrier()
        started = time.perf_counter()
        for _ in range(count):
            dist.all_reduce(gradient)
        return (time.perf_counter() - started) / count


def measure(
    pair: Sequence[str], batches: Sequence[int], student_steps: int, repetitions: int, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Seconds by batch size of one process and of two, one thread each, and of all-reduces by bytes; medians.

    Args:
        settings: More of the configuration's, as `key=value`.
    """
    configs = {
        batch: configured(f"batch_size={batch}", f"transfer.student_steps={student_steps}", *settings, pair=pair)
        for batch in batches
    }
    make = partial(Trainings, configs)
    with Ranks(1, 1, make) as one, Ranks(2, 1, make) as two:
        turns = {f"one {batch}": partial(one, "iterate", batch) for batch in batches}
        turns |= {f"two {batch}": partial(two, "iterate", batch) for batch in batches}
        times = {name: median(each) for name, each in alternate(turns, repetitions).items()}
        generator, student = one("sizes")[0]
        sizes = sorted({4096, 65536, 4 * 2**20, generator, student})
        reductions = {
            size: median(max(two("all_reduce", size, 20)) for _ in range(max(3, repetitions))) for size in sizes
        }
    return {
        "pair": list(pair),
        "student_steps": student_steps,
        "repetitions": repetitions,
        "generator_bytes": generator,
        "student_bytes": student,
        "one_process_seconds": {batch: times[f"one {batch}"] for batch in batches},
        "two_processes_seconds": {batch: times[f"two {batch}"] for batch in batches},
        "all_reduce_seconds": reductions,
    }


def check(measured: dict[str, Any]) -> dict[str, Any]:
    """The model fitted to one process and to all-reduces, beside what was measured; relative errors."""
    compute = Compute.fitted(measured["one_process_seconds"])
    link = Link.fitted(measured["all_reduce_seconds"])
    cluster = Cluster(link, link, node=2)
    messages = (measured["generator_bytes"], *[measured["student_bytes"]] * measured["student_steps"])
    points = []
    for workers, name in ((1, "one_process_seconds"), (2, "two_processes_seconds")):
        for batch, seconds in measured[name].items():
            setting = Setting("", compute, batch, messages)
            predicted = setting.seconds(cluster, workers)
            points.append(
                {
                    "workers": workers,
                    "batch": batch,
                    "measured_seconds": seconds,
                    "predicted_seconds": predicted,
                    "communication_seconds": setting.communication(cluster, workers),
                    "error": predicted / seconds - 1,
                }
            )
    return {"compute": asdict(compute), "link": asdict(link), "points": points}


def predict(pair: Sequence[str]) -> dict[str, Any]:
    """GPUs, by the assumptions."""
    shipped, fresh = (scaling_gpu.work(f"transfer.pseudo_batch={kind}", pair=pair) for kind in ("post_update", "fresh"))
    rows = scaling_gpu.table_rows(scaling_gpu.settings(shipped, fresh), scaling_gpu.cluster())
    assumed = {name: {"value": value, "why": why} for name, (value, why) in scaling_gpu.ASSUMED.items()}
    return {"assumed": assumed, "work": {"shipped": shipped._asdict(), "fresh": fresh._asdict()}, "settings": rows}


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, repetitions=3)
    parser.add_argument("--pair", nargs=2, default=PAIR, metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 32, 64, 128])
    parser.add_argument("--student-steps", type=int, default=10, help="n_S of what is measured")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    options = parser.parse_args(argv)
    measured = measure(options.pair, options.batches, options.student_steps, options.repetitions)
    answer = {"measured": measured, "model": check(measured), "gpus": predict(options.pair)}
    print(tables(answer))
    write(answer, options.json)
    if options.figure:
        draw(answer, options.figure)


def tables(answer: dict[str, Any]) -> str:
    points = [
        (
            f"{point['workers']} × 1 thread",
            point["batch"],
            f"{point['measured_seconds']:.2f}",
            f"{point['predicted_seconds']:.2f}",
            f"{1e3 * point['communication_seconds']:.1f}",
            f"{point['error']:+.1%}",
        )
        for point in answer["model"]["points"]
    ]
    checked = table(("workers", "batch", "measured s", "model s", "of it communication, ms", "error"), points)
    gpus = [
        (row["setting"], *(_cell(row, n) for n in scaling_gpu.SHOWN), row["half_efficient_up_to"])
        for row in answer["gpus"]["settings"]
    ]
    columns = ("ms an iteration (speed-up)", *(f"{n} GPUs" for n in scaling_gpu.SHOWN), "efficient by half up to")
    return f"{checked}\n\n{table(columns, gpus)}\n"


def _cell(row: dict[str, Any], n: int) -> str:
    return f"{row['milliseconds'][n]:.1f} ({row['speedup'][n]:.1f})" if n in row["milliseconds"] else "–"


def draw(answer: dict[str, Any], path: Path) -> None:
    """Left the model and what was measured, right what it says of GPUs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=80)
    left, right = figure.subplots(1, 2)
    for workers, colour in ((1, "C0"), (2, "C1")):
        points = [point for point in answer["model"]["points"] if point["workers"] == workers]
        batches = [point["batch"] for point in points]
        left.plot(batches, [point["measured_seconds"] for point in points], "o", color=colour)
        label = f"{workers} process{'es' * (workers > 1)} × 1 thread"
        left.plot(batches, [point["predicted_seconds"] for point in points], "-", color=colour, label=label)
    left.set(xlabel="global batch", ylabel="seconds an iteration", title="CPU: measured (dots), model (lines)")
    left.legend()
    shipped, fresh = (scaling_gpu.Work(**answer["gpus"]["work"][name]) for name in ("shipped", "fresh"))
    gpus = scaling_gpu.cluster()
    for setting in scaling_gpu.settings(shipped, fresh):
        counts = [n for n in scaling_gpu.COUNTS if setting.images(n) >= 1]
        right.loglog(counts, [setting.speedup(gpus, n) for n in counts], ".-", base=2, label=setting.name)
    right.loglog(scaling_gpu.COUNTS, scaling_gpu.COUNTS, ":", color="grey", base=2, label="perfect")
    right.set(xlabel="GPUs", ylabel="images per second, relative to one GPU", title="H100s, by assumption")
    right.legend(fontsize="x-small")
    write_atomic_with(path, lambda file: figure.savefig(file, format="png"))


if __name__ == "__main__":
    main()
