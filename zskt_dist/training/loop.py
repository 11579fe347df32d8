"""The training loop of one rank: step, report, evaluate, save; resume and stop.

The loop depends neither on the algorithm nor on the launcher: a training defines one iteration.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config
from zskt_dist.distributed.batch_norm import load_statistics, running_statistics
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.evaluation.held_out import LABEL_FREE, generator_drift
from zskt_dist.evaluation.scorer import Scores
from zskt_dist.models import ImageShape, Statistics, breaks_far_out
from zskt_dist.runs.checkpoints import CheckpointStore, State
from zskt_dist.tasks.base import Training
from zskt_dist.tracking.base import Row, Tracker
from zskt_dist.tracking.local import History


class Progress(Protocol):
    """Shows how far the run is."""

    def tick(self, phase: str, iteration: int, iterations: int) -> None:
        """Called after every iteration."""

    def show(self, row: Row) -> None:
        """Called with metrics as soon as they are measured."""


@dataclass(frozen=True)
class Cadence:
    """Iterations between reports, evaluations and checkpoints; 0: only at the end."""

    log: int
    evaluation: int
    checkpoint: int

    @classmethod
    def of(cls, config: Config) -> "Cadence":
        return cls(config.tracking.log_every, config.evaluation.every, config.checkpoint.every)

    @staticmethod
    def due(every: int, done: int, total: int) -> bool:
        return done == total or (every > 0 and done % every == 0)


@dataclass(frozen=True)
class Outcome:
    """What the loop returns after the last iteration."""

    scores: Scores | None
    """None without test images, as the accuracy."""
    accuracy_best: float | None
    resumed_from: int | None
    seconds: float
    """Time of training, evaluation and saving, summed over resumed runs."""
    iterations_per_second: float
    estimates: dict[str, Any]
    """Label-free scores of the network; {} where nothing is estimated."""


class DivergedError(UserError):
    """A loss or a score is no longer finite."""


@contextmanager
def blaming_the_teacher(
    training: Training, teacher: nn.Module | None, image_shape: ImageShape, statistics: Statistics | None
) -> Iterator[None]:
    """A student that diverges because its teacher's answers are not finite is told as that.

    Only where a generator is trained, whose images are not bounded.
    """
    try:
        yield
    except DivergedError as error:
        unbounded = "generator" in training.engines
        if teacher is None or not unbounded or not breaks_far_out(teacher, image_shape, statistics):
            raise
        raise UserError(
            "the teacher's answers are not finite (NaN or infinite) to images far from ordinary ones, so the student "
            "cannot learn from them; look at its weights and its arithmetic (half precision?), or use "
            f"method=inversion, whose images stay within the range of pixels ({error})"
        ) from None


class Loop:
    """Runs `training` to its last iteration.

    Args:
        store: None: nothing is saved, and a run that is stopped starts anew.
        evaluate: Scores a network; all ranks call it together. None: there are no test images.
        history: Rows so far; part of every checkpoint.
        tracker: Further records, which get new rows only; on rank 0 alone.
        figures: Folder for the training's pictures; None: it draws none.
        preempted: Called on every rank after each report. It returns True if a machine of the run is about to be taken
            away: then everything is saved at once, and training goes on until the machine is gone.
    """

    def __init__(
        self,
        training: Training,
        world: World,
        store: CheckpointStore | None,
        cadence: Cadence,
        *,
        evaluate: Callable[[nn.Module], Scores] | None,
        history: History,
        tracker: Tracker,
        stop: StopVote,
        progress: Progress,
        figures: Path | None,
        preempted: Callable[[], bool] | None = None,
    ) -> None:
        self.training, self.world, self.store, self.cadence = training, world, store, cadence
        self.evaluate, self.history, self.tracker = evaluate, history, tracker
        self.stop, self.progress, self.figures = stop, progress, figures
        self.preempted = preempted
        self.seconds = 0.0
        self._clock = time.perf_counter()
        self._window = (0, self._clock)

    def run(self) -> Outcome:
        """All iterations from the newest checkpoint, or from the start.

        Raises:
            Interrupted: a stop was requested; a checkpoint holds everything up to there.
            UserError: the loss is no longer finite.
        """
        resumed_from = self._resume()
        start, total = resumed_from or 0, self.training.iterations
        self._clock = time.perf_counter()
        self._window = (start, self._clock)
        for iteration in range(start, total):
            metrics = self.training.step(iteration)
            done = iteration + 1
            leaving = False
            if Cadence.due(self.cadence.log, done, total):
                self._report(done, self._numbers(metrics, done))
                leaving = self._told_to_leave()
            if Cadence.due(self.cadence.evaluation, done, total):
                self._evaluate(done)
            stopping = self.stop.agreed() and done < total
            if Cadence.due(self.cadence.checkpoint, done, total) or stopping or leaving:
                self._numbers(metrics, done)  # refuses to save a diverged state
                self._save(done)
            if stopping:
                self.stop.close()
                raise Interrupted(done, total)
            self.progress.tick(self.training.phase, done, total)
        self.stop.close()
        return self._outcome(resumed_from)

    def _told_to_leave(self) -> bool:
        """True once, when a machine of the run is about to be taken away."""
        if self.preempted is None or not self.preempted():
            return False
        self.preempted = None
        return True

    def _report(self, done: int, values: Mapping[str, float]) -> None:
        row: Row = {"iteration": done, "time": round(time.time() * 1000), **values}
        self.history.log(row)
        self.tracker.log_row(row)
        self.progress.show(row)

    def _numbers(self, metrics: Metrics, done: int) -> Row:
        """The metrics of the global batch, rates and speed; the one place that waits for the device."""
        means = self.world.mean(metrics, self.training.weight)
        row = dict(_scalars(means))
        broken = [name for name, value in row.items() if not math.isfinite(value)]
        if broken:
            problem = f"{self.training.phase} diverged: {broken[0]} is {row[broken[0]]} at iteration {done}"
            raise DivergedError(f"{problem}. Lower the learning rate or the loss weights{self._before()}")
        row |= {f"{name}_learning_rate": engine.learning_rate for name, engine in self.training.engines.items()}
        now = time.perf_counter()
        if done > self._window[0]:
            row["iterations_per_second"] = (done - self._window[0]) / (now - self._window[1])
        self._window = (done, now)
        return row

    def _before(self) -> str:
        """What a run that cannot go on may go back to."""
        return "; the last checkpoint is from before" if self.store and self.store.newest() else ""

    def _evaluate(self, done: int) -> None:
        with self.training.trained() as network:
            scores = asdict(self.evaluate(network)) if self.evaluate else {}
            values = {name: value for name, value in scores.items() if value is not None}
            values |= self.training.judge(network, done)
        self._report(done, values)
        if self.figures is not None:
            path = self.figures / f"pseudo_images_{done:08d}.png"
            if self.training.picture(path if self.world.is_main else None) and self.world.is_main:
                self.tracker.log_image(done, path)

    def _save(self, done: int) -> None:
        if self.store is None:
            return
        engines = self.training.engines
        statistics = self.world.gather({name: _on_cpu(running_statistics(e.raw)) for name, e in engines.items()})
        states = {name: engine.state_dict() for name, engine in engines.items()}
        further = self.training.state()
        if self.world.is_main:
            self.history.write()
            state: State = {
                "engines": states,
                "statistics": statistics,
                "training": further,
                "history": self.history.rows,
                "seconds": self.elapsed(),
            }
            self.store.save(done, state)

    def _resume(self) -> int | None:
        """The iteration of the newest good checkpoint, restored into the training; None at the start."""
        if self.store is None:
            return None
        saved = self.world.from_main(self.store.latest)  # other workers' machines may not have the file
        if saved is None:
            return None
        iteration, state = saved
        for name, engine in self.training.engines.items():
            engine.load_state_dict(state["engines"][name])
            load_statistics(engine.raw, [statistics[name] for statistics in state["statistics"]], self.world)
        self.training.load(state.get("training", {}))  # absent in checkpoints of earlier versions
        self.history.rows = list(state["history"])
        self.seconds = state["seconds"]
        return iteration

    def elapsed(self) -> float:
        """Seconds so far, with those of the runs that this one continues."""
        return self.seconds + time.perf_counter() - self._clock

    def _outcome(self, resumed_from: int | None) -> Outcome:
        last, seconds = self.history.rows[-1], self.elapsed()
        return Outcome(
            scores=Scores(last["accuracy"], last.get("agreement")) if "accuracy" in last else None,
            accuracy_best=max((row["accuracy"] for row in self.history.rows if "accuracy" in row), default=None),
            resumed_from=resumed_from,
            seconds=seconds,
            iterations_per_second=self.training.iterations / seconds,
            estimates=_estimates(self.history.rows, last),
        )


def _estimates(history: list[Row], last: Row) -> dict[str, Any]:
    estimates: dict[str, Any] = {name: last[name] for name in LABEL_FREE if name in last}
    if estimates and (drift := generator_drift(history)) is not None:
        estimates["generator_loss_drift"] = drift
    return estimates


def _scalars(means: Mapping[str, list[float]]) -> Mapping[str, float]:
    """Vectors of class frequencies become their entropy in nats (section 4.3: close to log C)."""
    scalars: dict[str, Any] = {}
    for name, values in means.items():
        if name.endswith("_classes"):
            scalars[name.removesuffix("es") + "_entropy"] = -sum(p * math.log(p) for p in values if p > 0)
        else:
            (scalars[name],) = values
    return scalars


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
