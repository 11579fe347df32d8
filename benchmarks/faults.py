"""An elastic run on a cluster that loses workers, nodes and the driver: what is lost each time, and how it ends.

`python -m benchmarks.faults --json FILE` starts several Ray nodes on this machine, trains with launch.workers=[1, 2],
and kills something again and again.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, bound to this machine

from ray.cluster_utils import Cluster

from benchmarks import kills

RUN = "fault-run"
REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """Something was killed, or came, and other workers went on."""

    what: str
    iteration: int
    """The last one that the workers before were seen to have done; they show it three times a second."""
    checkpoint: int
    """Iteration of the newest checkpoint they left."""
    went_on_at: int
    """The first iteration that the new workers were seen to have done."""
    workers: int
    """How many these are."""
    seconds: float
    """From the fault to that iteration."""

    @property
    def wasted(self) -> int:
        """Iterations done twice: those after the checkpoint."""
        return max(0, self.iteration - self.checkpoint)


class Machines:
    """A head without CPUs, where the driver is, and worker nodes of one CPU each; all on this machine."""

    def __init__(self, nodes: int = 2) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(nodes)]
        self.cluster.wait_for_nodes()

    def lose(self) -> None:
        """A node is gone, with everything on it, without a word."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def gain(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def close(self) -> None:
        self.cluster.shutdown()


class Run:
    """The training command, as a user starts it and starts it again."""

    def __init__(self, folder: Path, address: str, arguments: Sequence[str]) -> None:
        self.folder, self.address, self.arguments = folder, address, list(arguments)
        self.directory = folder / "runs" / "digits" / RUN
        self.shown: list[int] = []
        threading.Thread(target=self._sample, daemon=True).start()
        self.start()

    def start(self) -> None:
        environment = os.environ | {"RAY_ADDRESS": self.address, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zskt_dist.train", f"name={RUN}", "launch.kind=ray", *self.arguments],
            cwd=self.folder,
            env=environment,
            stdout=(self.folder / "log").open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def start_again(self) -> None:
        self.kill()
        self.start()

    def _sample(self) -> None:
        """Notes what the run shows, whenever it shows something new."""
        written = 0
        while True:
            with suppress(FileNotFoundError, ValueError):
                path = self.directory / "progress.json"
                now = path.stat().st_mtime_ns
                state = json.loads(path.read_text())
                if now != written and state["phase"] == "student":
                    written = now
                    self.shown.append(int(state["iteration"]))
            time.sleep(0.05)

    def iteration(self) -> int:
        """Of the student, as the run has shown it last; 0 before it begins."""
        return self.shown[-1] if self.shown else 0

    def checkpoint(self) -> int:
        """Iteration of the newest one."""
        return max((int(path.name.split("-")[0]) for path in (self.directory / "checkpoints").glob("*.pt")), default=0)

    def wait_for(self, reached: Callable[[], bool], patience: float = 400.0) -> None:
        """Raises AssertionError, with what the run has said, where it ends or patience does."""
        deadline = time.monotonic() + patience
        while not reached():
            log = (self.folder / "log").read_text()
            assert self.process.poll() in (None, 0), log
            assert time.monotonic() < deadline, f"waited {patience} s at iteration {self.iteration()}:\n{log}"
            time.sleep(0.05)

    def result(self) -> dict[str, Any]:
        """Waits for the end of the run."""
        self.wait_for(lambda: self.process.poll() is not None)
        return dict(json.loads((self.directory / "result.json").read_text()))


def workers() -> list[int]:
    """Process ids of Ray's training workers on this machine."""
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if "ray::RayTrainWorker" in line]


def strike(run: Run, what: str, act: Callable[[], None], at: int) -> Fault:
    """Does `act` once the run has reached iteration `at`, and waits until other workers go on."""
    run.wait_for(lambda: run.iteration() >= at)
    before, started = set(workers()), time.monotonic()
    act()
    run.wait_for(lambda: bool(now := set(workers())) and not now & before)
    checkpoint, shown = run.checkpoint(), len(run.shown)
    last = max(run.shown[:shown])
    run.wait_for(lambda: len(run.shown) > shown or run.process.poll() == 0)
    assert len(run.shown) > shown, "the run has ended before it could show how it went on"
    return Fault(what, last, checkpoint, run.shown[shown], len(workers()), round(time.monotonic() - started, 1))


def kill_worker() -> None:
    os.kill(workers()[-1], signal.SIGKILL)


@contextmanager
def machines() -> Iterator[Machines]:
    ours = Machines()
    try:
        yield ours
    finally:
        ours.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--every", type=int, default=20, help="iterations between checkpoints")
    parser.add_argument("--kills", type=int, metavar="N", help="instead: N random kills in all phases of runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims of --kills")
    options = parser.parse_args()
    if options.kills:
        answer = kills_of(options.kills, options.seed)
    else:
        answer = elastic_run(options.iterations, options.every)
    answer = {"machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"} | answer
    print(json.dumps({key: value for key, value in answer.items() if key != "each"}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


def kills_of(count: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return kills.measure(count, seed, Path(folder))


def elastic_run(iterations: int, every: int) -> dict[str, Any]:
    arguments = [
        "--config",
        str(REPOSITORY / "configs" / "digits.yaml"),
        *(f"iterations={iterations}", f"checkpoint.every={every}", "tracking.uri=none"),
        *("launch.workers=[1,2]", "launch.cpus_per_worker=1", "launch.resize_seconds=5"),
    ]
    with tempfile.TemporaryDirectory() as folder, machines() as ours:
        run = Run(Path(folder), ours.cluster.address, arguments)
        steps: list[tuple[str, Callable[[], None]]] = [
            ("a worker is killed", kill_worker),
            ("a node is lost", ours.lose),
            ("a node joins", ours.gain),
            ("the driver is killed, the command given again", run.start_again),
            ("a worker is killed", kill_worker),
            ("a node is lost", ours.lose),
            ("a node joins", ours.gain),
            ("the driver is killed, the command given again", run.start_again),
        ]
        places = [(number + 1) * iterations // (len(steps) + 1) for number in range(len(steps))]
        faults = []
        for (what, act), at in zip(steps, places, strict=True):
            faults.append(strike(run, what, act, at))
            print(faults[-1], flush=True)
        result = run.result()
    return {
        "iterations": iterations,
        "checkpoint_every": every,
        "faults": [asdict(fault) | {"wasted": fault.wasted} for fault in faults],
        "accuracy_last": result["student"]["accuracy_last"],
        "agreement": result["student"]["agreement"],
        "world_size_at_the_end": result["world_size"],
    }


if __name__ == "__main__":
    main()
