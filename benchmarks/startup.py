"""What a command costs before it trains: the interpreter, imports, process groups, the first iteration, Ray.

Every measurement is a new process, and all of them take turns. An import is timed in a process of its own, without
the interpreter's start: what two packages share is counted in both. `--ray` adds a cluster of this machine alone.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import alternate, arguments, table, write

REPOSITORY = Path(__file__).parents[1]
MODULES = ("torch", "torchvision", "pyarrow", "mlflow", "ray.train.torch")
TINY = [
    *("-m", "zskt_dist.train", "iterations=1", "batch_size=8", "supervised.iterations=1", "supervised.batch_size=8"),
    *("teacher.arch=wrn-10-1", "transfer.student_steps=1", "tracking.uri=none", "evaluation.held_out_images=0"),
]
"""A teacher and a student of one step each: what remains is the launcher, and files and figures at the end."""


class Program:
    """Is started again and again; `parts` are the seconds that it tells of itself."""

    def __init__(self, *command: str) -> None:
        self.command = [sys.executable, *command]
        self.parts: dict[str, list[float]] = {}

    def __call__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:  # runs would be found again
            environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "disabled"}
            answer = subprocess.run(self.command, cwd=folder, env=environment, capture_output=True, text=True)
        if answer.returncode:
            raise RuntimeError(f"{' '.join(self.command)}:\n{answer.stdout}{answer.stderr}")
        _, _, told = answer.stdout.rstrip().rpartition("\n")
        if told.startswith("{"):
            for part, seconds in json.loads(told).items():
                self.parts.setdefault(part, []).append(seconds)


def programs(*, with_ray: bool) -> dict[str, Program]:
    ours = "benchmarks.startup_programs"
    found = {
        "interpreter": Program("-c", "pass"),
        "--help": Program("-m", "zskt_dist.train", "--help"),
        **{f"import {module}": Program("-c", f"import {module}") for module in MODULES},
        "one process": Program("-m", ours, "iteration"),
        "two processes": Program("-m", ours, "group"),
        "local run, one worker": Program(*TINY, "launch.workers=1"),
        "local run, two workers": Program(*TINY, "launch.workers=2"),
    }
    if with_ray:
        found["Ray"] = Program("-m", ours, "ray")
        found["Ray run, two workers"] = Program(*TINY, "launch.kind=ray", "launch.workers=2")
    return found


def measure(chosen: dict[str, Program], repetitions: int, warm_up: int = 1) -> dict[str, Any]:
    """Medians: the whole of each program, and its parts; the first start, which reads from disk, is not counted."""
    times = {name: median(each) for name, each in alternate(chosen, repetitions, warm_up).items()}
    for name in times:
        if name.startswith("import "):
            times[name] -= times["interpreter"]
    return {
        "repetitions": repetitions,
        "seconds": times,
        "parts": {
            name: {part: median(each[warm_up:]) for part, each in program.parts.items()}
            for name, program in chosen.items()
            if program.parts
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, repetitions=5)
    parser.add_argument("--ray", action="store_true", help="start Ray as well, again and again")
    options = parser.parse_args(argv)
    answer = measure(programs(with_ray=options.ray), options.repetitions)
    rows: list[tuple[str, str]] = []
    for name, seconds in answer["seconds"].items():
        rows.append((name, f"{seconds:.2f}"))
        rows += [(f"– {part}", f"{each:.3f}") for part, each in answer["parts"].get(name, {}).items()]
    print(table(("", "seconds"), rows))
    write(answer, options.json)


if __name__ == "__main__":
    main()
