"""Work until a student is as good as Algorithm 1 makes it in the end: Algorithm 1 against inversion, on two pairs.

Both methods have the teacher and the student of a shipped configuration. On the way the student is measured on the test
images; a method has arrived at the first measurement that is no worse than the last one of Algorithm 1. GFLOP are
counted (`zskt_dist.speed.work`); CPU-seconds are those of the whole run with its measurements, times the share of its
GFLOP until then.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from benchmarks.measure import table, write
from zskt_dist.config import Config, load_config
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_generator, new_network
from zskt_dist.speed import inversion_gflop, iteration_gflop
from zskt_dist.tracking.local import read_history

METHODS = {"belief_matching": "Algorithm 1", "inversion": "inversion"}
ALONE = ("launch.kind=local", "launch.workers=1", "launch.cpus_per_worker=1")
QUIET = ("tracking.uri=none", "tracking.images=0", "evaluation.yardstick=false", "evaluation.held_out_images=0")
Execute = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Pair:
    """A teacher and a student.

    Attributes:
        config: Name of a shipped configuration.
        shape: Of the images.
        common: Overrides of both methods.
        own: Overrides of each method: as much work as it needs, and some thirty measurements.
    """

    config: str
    shape: ImageShape
    common: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


# Settings of a short run: fewer batches than the defaults before the first that is kept, each smaller and faster.
# They were chosen on other students: wrn-10-2 on digits, lenet-2 on Fashion-MNIST.
SHORT = (
    *("batch_size=64", "inversion.images=16", "inversion.parts=1", "inversion.steps=10", "inversion.warm_up=20"),
    *("inversion.rounds=20", "inversion.views=4", "inversion.learning_rate=0.01"),
)
PAIRS = {
    "digits": Pair(
        "digits",
        ImageShape(1, 8, 8),
        own={
            "belief_matching": ("iterations=160", "evaluation.every=5"),
            "inversion": (*SHORT, "iterations=300", "evaluation.every=10"),
        },
    ),
    "fashion": Pair(
        "two_cores/fashion",
        ImageShape(1, 28, 28),
        own={
            "belief_matching": ("batch_size=64", "iterations=250", "evaluation.every=10"),
            "inversion": (*SHORT, "iterations=300", "evaluation.every=10"),
        },
    ),
}


@dataclass(frozen=True)
class Curve:
    """Accuracy on the way of a run."""

    gflop: list[float]
    accuracy: list[float]
    cpu_seconds: float

    def reached(self, accuracy: float) -> int | None:
        """Position of the first measurement that is no worse; None: there is none."""
        return next((place for place, value in enumerate(self.accuracy) if value >= accuracy), None)


def compare(curves: Mapping[str, Curve]) -> dict[str, Any]:
    """GFLOP and CPU-seconds of both methods until the last accuracy of Algorithm 1, and how many times fewer."""
    target = curves["belief_matching"].accuracy[-1]
    answer: dict[str, Any] = {"target_accuracy": target}
    for method, curve in curves.items():
        place = curve.reached(target)
        work = None if place is None else curve.gflop[place]
        share = None if work is None else work / curve.gflop[-1]
        answer[method] = {
            "gflop": work,
            "cpu_seconds": None if share is None else round(share * curve.cpu_seconds, 1),
            "gflop_of_the_run": curve.gflop[-1],
            "cpu_seconds_of_the_run": round(curve.cpu_seconds, 1),
            "last_accuracy": curve.accuracy[-1],
            "curve": [list(point) for point in zip(curve.gflop, curve.accuracy, strict=True)],
        }
    theirs, ours = (answer[method]["gflop"] for method in METHODS)
    return answer | {"ratio_gflop": theirs / ours if ours else None}


def row(answer: Mapping[str, Any]) -> list[str]:
    """An answer of `compare` for people: accuracy, GFLOP and CPU-seconds of both methods, times fewer."""
    spent = [answer[method][what] for what in ("gflop", "cpu_seconds") for method in METHODS]
    ratio = answer["ratio_gflop"]
    return [
        f"{answer['target_accuracy']:.2%}",
        *("not reached" if number is None else f"{number:,.0f}" for number in spent),
        f"{ratio:.1f}" if ratio else "-",
    ]


def run(pair: Pair, method: str, runs: Path, extra: Sequence[str], execute: Execute) -> Curve:
    """Trains a student, the cached teacher before it, and reads what was measured."""
    overrides = [*pair.common, *ALONE, *QUIET, f"method={method}", *pair.own[method], f"runs_dir={runs}", *extra]
    config = load_config(pair.config, [*overrides, "experiment=time", f"name={method}"])
    execute(["pretrain", "--config", pair.config, *overrides, "evaluation.every=0"])
    before = _cpu_seconds()
    execute(["train", "--config", pair.config, *overrides, "experiment=time", f"name={method}", "--fresh"])
    spent = _cpu_seconds() - before
    rows = [row for row in read_history(runs / "time" / method / "history.parquet") if row.get("accuracy") is not None]
    done = _work(config, pair.shape, [int(row["iteration"]) for row in rows])
    return Curve(done, [float(row["accuracy"]) for row in rows], spent)


def _work(config: Config, shape: ImageShape, iterations: Sequence[int]) -> list[float]:
    """GFLOP up to each of these iterations."""
    classes = 10
    teacher, student = (new_network(config, role, shape, classes) for role in ("teacher", "student"))
    generator = new_generator(config, shape)
    if config.method == "belief_matching":
        each = iteration_gflop(config, generator, teacher, student, shape)
        return [each * iteration for iteration in iterations]
    return [inversion_gflop(config, generator, teacher, student, shape, iteration) for iteration in iterations]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _in_a_process(words: Sequence[str]) -> None:
    command = [sys.executable, "-m", f"zskt_dist.{words[0]}", *words[1:]]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def draw(answers: Mapping[str, Any], path: Path) -> None:
    """Accuracy against GFLOP, a panel for each pair."""
    figure, panels = plt.subplots(1, len(answers), figsize=(4.5 * len(answers), 3.4), squeeze=False)
    for panel, (name, answer) in zip(panels[0], answers.items(), strict=True):
        for method, label in METHODS.items():
            gflop, accuracy = zip(*answer[method]["curve"], strict=True)
            panel.plot(gflop, accuracy, marker=".", label=label)
        panel.axhline(answer["target_accuracy"], color="gray", linewidth=0.8, linestyle="--")
        panel.set(title=name, xlabel="GFLOP", ylabel="test accuracy", xscale="log")
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments_: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--fashion-mnist", metavar="FOLDER", help="the data set as Parquet files, for its pair")
    parser.add_argument("--runs", type=Path, help="keep the runs there; else they are thrown away")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw accuracy against GFLOP, as PNG")
    wanted = parser.parse_args(arguments_)
    if "fashion" in wanted.pairs and not wanted.fashion_mnist:
        parser.error("the pair fashion needs --fashion-mnist FOLDER; or leave it out: --pairs digits")
    torch.set_num_threads(1)
    answers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in wanted.pairs:
            extra = [f"data.root={wanted.fashion_mnist}"] if name == "fashion" else []
            folder = (wanted.runs or Path(scratch)) / name
            curves = {method: run(PAIRS[name], method, folder, extra, _in_a_process) for method in METHODS}
            answers[name] = compare(curves)
    columns = ["pair", "accuracy", "GFLOP, Algorithm 1", "GFLOP, inversion", "CPU s", "CPU s, inversion", "times fewer"]
    print(table(columns, [[name, *row(answer)] for name, answer in answers.items()]))
    write({"pairs": answers}, wanted.json)
    if wanted.figure:
        draw(answers, wanted.figure)


if __name__ == "__main__":
    main()
