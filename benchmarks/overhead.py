"""What a run does besides training: metric rows, MLflow, the progress file, checkpoints, evaluation.

Each is measured by the loop's own code, in turns with iterations of the same run: seconds per event, and at the
cadence of the configuration the share of the time that training takes. MLflow has a thread of its own; it is
charged as if training waited for it, which is the worst case.
"""

import itertools
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.measure import alternate, arguments, table, write
from benchmarks.subject import CLASSES, SHAPE, configured, student, teacher
from zskt_dist.config import Config, flatten
from zskt_dist.data import ImageDataset
from zskt_dist.data.images import Split
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.scorer import Evaluator
from zskt_dist.models import ImageShape
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.tasks.transfer import TransferTraining
from zskt_dist.tracking.base import NullTracker
from zskt_dist.tracking.local import History, ProgressFile
from zskt_dist.tracking.mlflow.runs import open_run
from zskt_dist.tracking.mlflow.stream import MlflowStream
from zskt_dist.training.loop import Cadence, Loop

CHARGED = ("metric row", "MLflow row", "progress file", "checkpoint")
"""What the target of 2 % speaks of: tracking, logging and checkpoints."""


@dataclass(frozen=True)
class Subject:
    config: Config
    shape: ImageShape
    test_images: int
    """Of the data set."""
    measured_images: int
    """Of them, in a measurement, which is scaled up."""


SUBJECTS: dict[str, Callable[[], Subject]] = {
    # The cadence of a run that says nothing about it.
    "paper": lambda: Subject(
        configured("tracking.log_every=50", "checkpoint.every=500", "evaluation.every=1000"), SHAPE, 10_000, 1000
    ),
    "digits": lambda: Subject(configured(name="digits", pair=("wrn-16-2", "wrn-10-1")), ImageShape(1, 8, 8), 360, 360),
}


class Run:
    """A run in the middle of its life, whose parts can be called one by one."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        config, world = subject.config, World(torch.device("cpu"))
        self.subject, self.config = subject, config
        taught = teacher(config, subject.shape)
        self.task = TransferTraining(
            config, taught, student(config, subject.shape), subject.shape, world, folder / "snapshots"
        )
        self.evaluator = Evaluator(_synthetic(subject), world, batch_size=config.evaluation.batch_size, teacher=taught)
        self.history = History(folder / "history.parquet")
        self.progress = ProgressFile(folder / "progress.json")
        self.figures = folder / "figures"
        self.loop = Loop(
            self.task,
            world,
            CheckpointStore(folder / "checkpoints", config.checkpoint.keep),
            Cadence.of(config),
            evaluate=self.evaluator,
            history=self.history,
            tracker=NullTracker(),
            stop=StopVote(world),
            progress=self.progress,
            figures=self.figures,
        )
        self.mlflow = MlflowStream(
            open_run(f"sqlite:///{folder}/mlflow.db", "overhead", "run", params=dict(flatten(config)), tags={})
        )
        middle = config.iterations // 2
        for moment in self.task.held_out.moments:
            if moment < middle:
                self.task.held_out.after(moment)  # generators of before, which judge the student as well
        self._next = itertools.count(middle)
        self.iterate()
        self.report()
        row, every = self.history.rows[-1], config.tracking.log_every
        # A checkpoint holds the rows so far, on average those of half a run.
        self.history.rows = [row | {"iteration": done} for done in range(every, middle, every)]

    def iterate(self) -> None:
        self.metrics = self.task.step(0)

    def report(self) -> None:
        """Waits for the device, which on a GPU would be part of the iteration."""
        done = next(self._next)
        self.loop._report(done, self.loop._numbers(self.metrics, done))

    def send(self) -> None:
        """A row through MLflow's queue into its store, until it is there."""
        arrived = threading.Event()
        self.mlflow.log_row(self.history.rows[-1] | {"iteration": next(self._next)})
        self.mlflow._put(lambda _: arrived.set())
        arrived.wait()

    def show(self) -> None:
        self.progress.SECONDS = 0.0
        self.progress.tick("student", next(self._next), self.config.iterations)

    def save(self) -> None:
        self.loop._save(next(self._next))

    def score(self) -> None:
        with self.task.trained() as network:
            self.evaluator(network)

    def judge(self) -> None:
        with self.task.trained() as network:
            self.task.judge(network, next(self._next))

    def draw(self) -> None:
        path = self.figures / "pseudo_images.png"
        self.task.picture(path)
        arrived = threading.Event()
        self.mlflow.log_image(next(self._next), path)
        self.mlflow._put(lambda _: arrived.set())
        arrived.wait()


def measure(subject: Subject, repetitions: int) -> dict[str, Any]:
    """Medians: the iteration, and of every event the seconds and the share of training time."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(subject, Path(folder))
        parts: dict[str, Callable[[], object]] = {
            "iteration": run.iterate,
            "metric row": run.report,
            "MLflow row": run.send,
            "progress file": run.show,
            "checkpoint": run.save,
            "accuracy": run.score,
            "label-free score": run.judge,
            "picture": run.draw,
        }
        times = {name: median(each) for name, each in alternate(parts, repetitions).items()}
        run.mlflow.close()
    iteration = times.pop("iteration")
    times["accuracy"] *= subject.test_images / subject.measured_images
    every = {name: iterations_between(name, subject.config, iteration) for name in times}
    shares = {name: seconds / every[name] / iteration for name, seconds in times.items()}
    return {
        "pair": [subject.config.teacher.arch, subject.config.student.arch],
        "repetitions": repetitions,
        "test_images": subject.test_images,
        "test_images_measured": subject.measured_images,
        "iteration_seconds": iteration,
        "events": {
            name: {"seconds": times[name], "every": every[name], "share_of_training": shares[name]} for name in times
        },
        "tracking_and_checkpoint_share": sum(shares[name] for name in CHARGED),
        "evaluation_share": sum(share for name, share in shares.items() if name not in CHARGED),
    }


def iterations_between(event: str, config: Config, iteration_seconds: float) -> float:
    if event in ("metric row", "MLflow row"):
        return config.tracking.log_every
    if event == "checkpoint":
        return config.checkpoint.every
    if event == "progress file":  # written at most so often, however short an iteration is
        return max(1.0, ProgressFile.SECONDS / iteration_seconds)
    return config.evaluation.every


def _synthetic(subject: Subject) -> ImageDataset:
    """Random test images."""
    count, channels = subject.measured_images, subject.shape.channels
    images = torch.randint(0, 256, (count, *subject.shape), dtype=torch.uint8)
    split = Split(images, torch.arange(count) % CLASSES)
    statistics = (0.5,) * channels, (0.25,) * channels
    return ImageDataset("synthetic", subject.shape, CLASSES, lambda _: split, statistics)


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, repetitions=5)
    parser.add_argument("--only", choices=list(SUBJECTS), help="one of the two runs")
    options = parser.parse_args(argv)
    answer = {}
    for name, subject in SUBJECTS.items():
        if options.only in (None, name):
            answer[name] = measure(subject(), options.repetitions)
            _show(name, answer[name])
    write(answer, options.json)


def _show(name: str, answer: dict[str, Any]) -> None:
    print(f"{name}: {' → '.join(answer['pair'])}, an iteration takes {answer['iteration_seconds']:.3f} s\n")
    rows = [
        (event, f"{one['seconds'] * 1e3:.1f}", f"{one['every']:.0f}", f"{one['share_of_training']:.3%}")
        for event, one in answer["events"].items()
    ]
    rows.append(("**tracking, logging, checkpoints**", "", "", f"**{answer['tracking_and_checkpoint_share']:.3%}**"))
    rows.append(("evaluation", "", "", f"{answer['evaluation_share']:.3%}"))
    print(table(("", "ms", "every … iterations", "of training time"), rows), "\n")


if __name__ == "__main__":
    main()
