"""What every worker does for a job, whoever launched it: the stages, one after the other."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module

import torch.distributed as dist

from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.files import remove_leftovers
from zskt_dist.networks.inputs import Inputs, open_inputs
from zskt_dist.runs.directory import Result, RunDirectory
from zskt_dist.runs.locations import is_uri, join
from zskt_dist.tasks.base import Context, Files, declarations
from zskt_dist.tasks.stages import Stage, user_files
from zskt_dist.tracking.base import NullTracker, Tracker
from zskt_dist.tracking.local import ProgressFile
from zskt_dist.training.fitting import Fitting
from zskt_dist.training.job import Job
from zskt_dist.training.out_of_memory import shortage_as_user_error

# A killed job's workers may still write for a moment; another run may train the shared teacher for hours.
_RUN_PATIENCE_SECONDS = 90.0
_EARLIER_PATIENCE_SECONDS = 24 * 3600.0

log = logging.getLogger(__name__)


@dataclass
class Worker:
    """One rank of a job.

    Attributes:
        tracker: Further records of the last stage's run; used on rank 0 only.
        preempted: Returns True if a machine of the run is about to be taken away; all ranks call it together.
        files: Weights that have been read already in this process, by location.
    """

    job: Job
    world: World
    tracker: Tracker = field(default_factory=NullTracker)
    preempted: Callable[[], bool] | None = None
    files: Files = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = self.job.directory
        self.stop = StopVote(self.world, self.directory.stop)

    def run(self) -> None:
        """Runs the job to its end; the results are in the run directories.

        Raises:
            Interrupted: a stop was requested; everything is saved.
            UserError: the job cannot be done.
        """
        with shortage_as_user_error(), self.stop.listening(), self._held(self.directory, _RUN_PATIENCE_SECONDS):
            for stage in self.job.stages[:-1]:
                directory = stage.directory
                with self._held(directory, _EARLIER_PATIENCE_SECONDS):
                    self._run(stage, directory, NullTracker())
                self.world.barrier()  # rank 0 has written the weights
            self._run(self.job.goal, self.directory, self.tracker)
        self.world.from_main(self.job.push)

    def run_for_driver(self) -> None:
        """Runs the job for a driver in another process: errors for the user are left in the run directory."""
        if is_uri(self.directory.location):
            self.directory.failure.unlink(missing_ok=True)  # of an earlier run; the driver may be on another machine
        try:
            self.run()
        except Interrupted as error:
            if self.world.is_main:  # rank 0 may be the last to save, and the driver waits for this failure
                self.directory.leave_failure(error)
        except UserError as error:
            self.directory.leave_failure(error)
            if self.world.size > 1:
                dist.destroy_process_group()  # other workers may wait for this one; now their wait ends in an error
        except RuntimeError:
            if not self.directory.failure_left():  # else: this error follows from that of another worker
                raise

    @cached_property
    def inputs(self) -> Inputs:
        """What networks read and answer, the same in all stages; all workers read it together the first time."""
        goal = self.job.goal
        found = self.world.from_main(lambda: declarations(self.job.stages, self.files))
        inputs = open_inputs(goal.config, found, needs_train=self.job.needs_training_images)
        if self.world.is_main and inputs.warning:
            log.warning("%s", inputs.warning)
        if self.world.is_main and inputs.dataset:
            for topic, text in inputs.dataset.notes:
                log.warning("%s: %s", topic, text)
        return inputs

    def _run(self, stage: Stage, directory: RunDirectory, tracker: Tracker) -> None:
        progress = ProgressFile(self.directory.progress if self.world.is_main else None)

        def tick(phase: str, done: int, total: int) -> None:
            progress.tick(phase, done, total)
            if self.stop.agreed():  # before the first iteration: nothing is lost
                raise Interrupted(0, 0)

        context = Context(stage, directory, self.world, lambda: self.inputs, self.files, tick)
        module = import_module(stage.task.module)
        if not stage.task.trains:
            module.run(context, self.stop)
            return
        earlier = stage is not self.job.goal  # whose directory the driver has begun
        if self.world.from_main(lambda: self._begin(stage, directory) if earlier else directory.finished()):
            return
        Fitting(
            context,
            module.start,
            self.job,
            tracker=tracker,
            stop=self.stop,
            progress=progress,
            preempted=self.preempted,
        ).run()

    def _begin(self, stage: Stage, directory: RunDirectory) -> Result | None:
        """Begins the run of an earlier stage; of one that is there checks that the user's files are still the same."""
        given = user_files(stage)
        files = {key: digest for key, digest in self.job.digests.items() if key in given}
        known = join(stage.run, directory.weights(stage.task.role).name) in self.files  # it was read, and was whole
        result = directory.finished() if known else directory.whole()
        if result:
            directory.check_files(files)
        else:
            teacher = stage.inputs.get("teacher")
            directory.begin(stage.task.command, stage.config, teacher, task=stage.name, files=files)
        return result

    @contextmanager
    def _held(self, directory: RunDirectory, patience: float) -> Iterator[None]:
        """Lets these workers alone write to a directory; rank 0 downloads it from its store and uploads to it."""
        with _Lock(directory, self.world, self.stop, patience):
            self.world.from_main(lambda: _prepare(directory))
            if not self.world.is_main:
                yield
                return
            # Elsewhere the driver is on this machine, and writes the stop file itself.
            stop = directory.stop if self.job.launcher == "ray" and directory.path == self.directory.path else None
            try:
                with directory.mirror.following(stop):
                    yield
            finally:
                directory.mirror.attempt(directory.mirror.push)


def _prepare(directory: RunDirectory) -> None:
    remove_leftovers(directory.path)
    directory.mirror.pull(checkpoints=False)
    if directory.whole(quiet=True) is None:  # training needs its checkpoints
        directory.mirror.pull()


class _Lock:
    """A run directory's lock, held by rank 0 for all; the others wait until it has it."""

    def __init__(self, directory: RunDirectory, world: World, stop: StopVote, patience: float) -> None:
        self._directory, self._world, self._stop, self._patience = directory, world, stop, patience

    def __enter__(self) -> None:
        """Waits for the lock; raises Interrupted where a stop is requested, and UserError after `patience` seconds."""
        started = time.monotonic()
        while True:
            self._held = self._directory.try_lock() if self._world.is_main else None
            late = time.monotonic() - started > self._patience
            held, stopped, late = self._world.broadcast((self._held is not None, self._stop.wanted, late))
            if held:
                return
            if stopped:
                raise Interrupted(0, 0)
            if late:
                raise UserError(f"{self._directory.path}: another process is working on this run")
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.close()
