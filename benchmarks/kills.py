"""Random kills in all phases of a run and of what follows it: is everything at the end as without them?

`python -m benchmarks.faults --kills 100 --json FILE`. Runs on digits are trained by two workers, evaluated, exported
and recorded in MLflow. Every third run is trained on Ray, the others by local workers. At a random moment of each
command a process of it, or all of them, are killed with SIGKILL, and the same command is given again, until it ends.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[1]
RUN = "runs/digits/run"
SETTINGS = (
    *("--config", str(REPOSITORY / "configs/digits.yaml"), "name=run", "iterations=120", "checkpoint.every=10"),
    *("evaluation.every=30", "launch.workers=2", "launch.cpus_per_worker=1", "batch_size=32"),
    *("teacher.arch=lenet", "student.arch=lenet", "supervised.iterations=60", "tracking.log_every=5"),
    *("tracking.uri=sqlite:///mlflow.db", "evaluation.yardstick=false", "loss.beta=0"),
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "train": ("train", *SETTINGS),
    "evaluate": ("evaluate", RUN, "transitions.images=20", "transitions.steps=20", "launch.workers=1"),
    "export": ("export", RUN, "--to", "safetensors", "pt2", "card"),
    "upload": ("replay", RUN),
}
MOST = {"train": 8, "evaluate": 3, "export": 2, "upload": 2}
"""Kills of a command in one run: those that keep no part of their work would never end."""
RAY_EVERY = 3
"""Of so many runs, one is trained on Ray; what it leaves must equal what local workers leave."""
VICTIMS = ("the command", "the driver alone", "a worker", "the raylet")
_PATIENCE = 300.0


@dataclass(frozen=True)
class Kill:
    """One kill, and what it cost.

    Attributes:
        iteration: The last one that the run had shown, of the phase it was in.
        redone: Iterations that were done again; None where no checkpoint is concerned.
        seconds: From the kill to the moment when the command, given again, is further, or has ended.
    """

    phase: str
    launcher: str
    victim: str
    iteration: int
    redone: int | None
    seconds: float


class Chaos:
    """A folder in which runs are made while something kills them."""

    def __init__(self, folder: Path, seed: int, launcher: str = "local") -> None:
        self.folder, self.rng, self.kills, self.launcher = folder, random.Random(seed), list[Kill](), launcher
        self.seconds: dict[str, float] = {}
        """How long each command takes when nobody kills it."""

    def undisturbed(self) -> dict[str, str]:
        """Makes a run without kills; returns the digests of what it leaves."""
        for phase in COMMANDS:
            started = time.monotonic()
            code = self._start(phase).wait()
            assert code == 0, (self.folder / "log").read_text()[-3000:]
            self.seconds[phase] = time.monotonic() - started
        return digests(self.folder)

    def disturbed(self, most: int) -> dict[str, str]:
        """Makes a run with kills, so many at most; returns the same digests."""
        for phase in COMMANDS:
            process = self._start(phase)
            for _ in range(min(MOST[phase], most - len(self.kills))):
                if self._ends_before_its_kill(phase, process):
                    break
                process = self._kill(phase, process)
            code = process.wait(_PATIENCE)
            assert code == 0, (self.folder / "log").read_text()[-3000:]
        return digests(self.folder)

    def _ends_before_its_kill(self, phase: str, process: subprocess.Popen[bytes]) -> bool:
        """Waits for a random moment."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(0.0, 0.7) * self.seconds[phase])
        return process.poll() is not None

    def _kill(self, phase: str, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Kills, and gives the same command again; returns its process once it is further than the one before."""
        children = _children(process.pid)
        victim = self.rng.choice([victim for victim in VICTIMS if children.get(victim) or victim == "the command"])
        before, checkpoint = self._iteration(), self._checkpoint()
        for pid in children["all"] if victim == "the command" else [self.rng.choice(children[victim])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        with suppress(subprocess.TimeoutExpired):  # a driver whose worker has died ends by itself
            process.wait(_PATIENCE)
        again = self._start(phase)
        while again.poll() is None and self._iteration() <= before and time.monotonic() - started < _PATIENCE:
            time.sleep(0.05)
        redone = max(0, before - checkpoint) if phase == "train" and before else None
        self.kills.append(Kill(phase, self.launcher, victim, before, redone, round(time.monotonic() - started, 1)))
        print(self.kills[-1], flush=True)
        return again

    def _start(self, phase: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        verb, *arguments = COMMANDS[phase]
        if phase == "train":
            arguments.append(f"launch.kind={self.launcher}")
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"zskt_dist.{verb}", *arguments],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _iteration(self) -> int:
        with suppress(FileNotFoundError, ValueError, KeyError):
            state = json.loads((self.folder / RUN / "progress.json").read_text())
            return int(state["iteration"]) if state["phase"] == "student" else 0
        return 0

    def _checkpoint(self) -> int:
        found = (self.folder / RUN / "checkpoints").glob("*.pt")
        return max((int(path.name.split("-")[0]) for path in found), default=0)


def _children(pid: int) -> dict[str, list[int]]:
    """Processes that a command has started, by what they are; those of Ray are the raylet and its workers."""
    children = psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []
    names = {child.pid: _name(child) for child in children}
    raylets = [number for number, name in names.items() if name == "raylet"]
    of_ray = [number for number, name in names.items() if name.startswith("ray::") and "Agent" not in name]
    direct = [child.pid for child in children if _parent(child) == pid]
    return {
        "all": [pid, *names],
        "the driver alone": [pid] if children else [],
        "a worker": of_ray if raylets else direct,
        "the raylet": raylets,
    }


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.name()
    return ""


def _parent(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return process.ppid()
    return 0


def digests(folder: Path) -> dict[str, str]:
    """Of the networks, the checked files beside them, the measurements and the exports."""
    run = folder / RUN
    files = sorted({*run.rglob("*.safetensors"), *(folder / "runs/teachers").rglob("*.safetensors")})
    found = {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    answer = json.loads((run / "evaluation/evaluation.json").read_text())
    numbers = {key: answer[key] for key in ("accuracy", "agreement", "mte", "calibration")}
    return found | {"evaluation": hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()}


def leftovers(folder: Path) -> list[str]:
    """Temporary files and processes of the run that are still there."""
    files = [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name.endswith(".tmp")]
    return files + [f"process {_name(process)}" for process in psutil.process_iter() if _works_in(folder, process)]


def _works_in(folder: Path, process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return Path(process.cwd()).is_relative_to(folder)
    return False


def measure(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kills `count` times over as many runs as it takes."""
    calm = Chaos(folder / "calm", seed)
    calm.folder.mkdir(parents=True)
    expected = calm.undisturbed()
    print(f"undisturbed: {calm.seconds}", flush=True)
    kills: list[Kill] = []
    equal: list[bool] = []
    left: list[str] = []
    while len(kills) < count:
        launcher = "ray" if len(equal) % RAY_EVERY == 0 else "local"
        chaos = Chaos(folder / f"run-{len(equal)}", seed + 1 + len(equal), launcher)
        chaos.folder.mkdir()
        chaos.seconds = calm.seconds
        found = chaos.disturbed(count - len(kills))
        kills += chaos.kills
        equal.append(found == expected)
        left += leftovers(chaos.folder)
        print(
            f"run {len(equal)} ({launcher}): {len(chaos.kills)} kills, equal: {equal[-1]}, left behind: {left}",
            flush=True,
        )
        if equal[-1]:
            shutil.rmtree(chaos.folder)
    return {
        "kills": len(kills),
        "runs": len(equal),
        "runs_equal": sum(equal),
        "left_behind": left,
        "phases": {
            f"{phase}, {launcher}": summary(
                [kill for kill in kills if (kill.phase, kill.launcher) == (phase, launcher)]
            )
            for phase in COMMANDS
            for launcher in ("local", "ray")
        },
        "victims": {victim: sum(kill.victim == victim for kill in kills) for victim in VICTIMS},
        "each": [asdict(kill) for kill in kills],
    }


def summary(kills: Sequence[Kill]) -> dict[str, float | int | None]:
    """Of one phase."""
    redone = [kill.redone for kill in kills if kill.redone is not None]
    return {
        "kills": len(kills),
        "redone_median": median(redone) if redone else None,
        "redone_most": max(redone) if redone else None,
        "seconds_median": median(kill.seconds for kill in kills) if kills else None,
        "seconds_most": max(kill.seconds for kill in kills) if kills else None,
    }
