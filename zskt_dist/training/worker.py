"""What every worker does for a command, whoever launched it."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch.distributed as dist
from torch import nn

from zskt_dist.config import Config
from zskt_dist.data import ImageDataset
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.engine.building import placed_teacher
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.evaluation.estimates import Answer, brief, estimate
from zskt_dist.evaluation.image_sources import normal_noise, uniform_noise
from zskt_dist.evaluation.run_evaluation import RunEvaluation
from zskt_dist.evaluation.scorer import Evaluator, images_at_a_time
from zskt_dist.files import write_json
from zskt_dist.models import count_parameters
from zskt_dist.networks.building import new_network, read_network
from zskt_dist.networks.inputs import Inputs, open_inputs
from zskt_dist.networks.weights import save_weights
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.storage import is_uri
from zskt_dist.speed import fastest_convolutions
from zskt_dist.tasks.pseudo_data import PseudoDataTask
from zskt_dist.tasks.supervised import SupervisedTask, distillation, finetuning, from_scratch
from zskt_dist.tasks.synthesize import Synthesis
from zskt_dist.tasks.transfer import ZeroShotTask
from zskt_dist.tracking.base import NullTracker, Tracker
from zskt_dist.tracking.local import History, ProgressFile
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Cadence, Loop, Outcome, Task
from zskt_dist.training.out_of_memory import exhaustion_told
from zskt_dist.training.result import build_result

# A killed job's workers may still write for a moment; a teacher may take another run hours to train.
_RUN_PATIENCE_SECONDS = 90.0
_TEACHER_PATIENCE_SECONDS = 24 * 3600.0

log = logging.getLogger(__name__)


@dataclass
class Worker:
    """One rank of a job.

    Attributes:
        tracker: Further records of the main run; used on rank 0 only.
        preempted: Whether a machine of the run is about to be taken away; asked on every rank together.
    """

    job: Job
    world: World
    tracker: Tracker = field(default_factory=NullTracker)
    preempted: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        self.directory = RunDirectory(self.job.directory)
        self.stop = StopVote(self.world, self.directory.stop)

    @cached_property
    def inputs(self) -> Inputs:
        """All workers ask for it together first."""
        inputs = open_inputs(self.job, self.world)
        if self.world.is_main and inputs.warning:
            log.warning("%s", inputs.warning)
        return inputs

    def run(self) -> None:
        """Runs the job's command to its end; the result is in the run directory.

        Raises:
            Interrupted: asked to stop, everything is saved.
            UserError: something the user asked for cannot be done.
        """
        if self.job.command != "synthesize":  # whose images shall not depend on which one that is
            fastest_convolutions(self.world.device)
        if self.job.command not in ("evaluate", "synthesize"):  # which share out images, or shards, one by one
            _check_batches(self.job.config, self.world)
        with exhaustion_told(), self.stop.listening(), self._held(self.directory, _RUN_PATIENCE_SECONDS):
            if self.job.command == "evaluate":
                RunEvaluation(self.job, self._images, self.world, self.stop).run()
            elif self.job.command == "synthesize":
                Synthesis(self.job, self.world, self.stop).run()
            else:
                self._fit(self.job.command, self.directory, self.tracker, self.job.role)
        self.world.from_main(self.job.push)

    def run_for_driver(self) -> None:
        """As `run`, where the driver is another process: what is meant for the user is left in the run directory."""
        if is_uri(self.job.directory):
            self.directory.failure.unlink(missing_ok=True)  # of an earlier run; the driver may be on another machine
        try:
            self.run()
        except Interrupted as error:
            if self.world.is_main:  # the others leave while rank 0 is still saving, and the driver waits for this word
                self.directory.tell(error)
        except UserError as error:
            self.directory.tell(error)
            if self.world.size > 1:
                dist.destroy_process_group()  # the others may wait for this worker, and now find it gone
        except RuntimeError:
            if not self.directory.told():  # else: another worker has told why it left
                raise

    def _fit(self, command: str, directory: RunDirectory, tracker: Tracker, role: str) -> None:
        """Trains what `command` asks for in `directory`, unless it is finished there."""
        if self.world.broadcast(directory.finished() if self.world.is_main else None):
            return
        if self.world.is_main and directory.path != self.directory.path:  # else the driver has written it
            config = self.job.config.model_copy(update={"name": None})
            directory.begin(command, config, replace(self.job, command=command).teacher_weights)
        task, teacher = self._task(command, role, directory)
        if self.world.is_main and task.attention and task.attention.warning:
            log.warning("%s", task.attention.warning)
        evaluator = self._evaluator(teacher)
        if self.world.is_main and isinstance(task, SupervisedTask):
            task.save_subset(directory.subset)
        outcome = self._loop(directory, task, evaluator, tracker)
        with task.trained() as network:
            sha256 = self._export(directory, role, network)
            params = {role: count_parameters(network)}
            if found := self._estimates(task, network, teacher):
                outcome = replace(outcome, estimates=outcome.estimates | {"sources": brief(found)})
                if self.world.is_main:
                    write_json(directory.estimates, found)
        accuracy = None
        if role == "teacher" and outcome.scores:
            accuracy = outcome.scores.accuracy
        elif evaluator:
            accuracy = evaluator.teacher_accuracy()
        if teacher is not None:
            params["teacher"] = self._teacher_size
        if self.world.is_main:
            job = replace(self.job, command=command, directory=directory.location)
            if directory.path != self.directory.path:
                job = replace(job, tracking=None)
            directory.finish(
                build_result(
                    job,
                    self.world,
                    outcome,
                    task,
                    params=params,
                    teacher_accuracy=accuracy,
                    sha256=None if role == "teacher" else sha256,
                    num_classes=self.inputs.num_classes,
                )
            )

    def _task(self, command: str, role: str, directory: RunDirectory) -> tuple[Task, nn.Module | None]:
        """What one iteration of `command` is, and the teacher its network is compared with."""
        config, world = self.job.config, self.world
        if command == "pretrain":
            return from_scratch(config, role, self._images, world), None
        if command == "train" and config.pseudo_data is not None:
            task = PseudoDataTask(config, self.inputs, world)
            return task, None if config.teacher.checkpoint is None else self._teacher()
        teacher = self._teacher()
        if command == "distill":
            return distillation(config, teacher, self._images, world), teacher
        if command == "finetune":
            return finetuning(config, self._zero_shot_student(), self._images, world), teacher
        shape = self.inputs.image_shape
        student = new_network(config, "student", shape, self.inputs.num_classes)
        return ZeroShotTask(config, teacher, student, shape, world, directory.snapshots), teacher

    @property
    def _images(self) -> ImageDataset:
        dataset = self.inputs.dataset
        assert dataset is not None, "commands that need images are refused without"
        return dataset

    def _evaluator(self, teacher: nn.Module | None) -> Evaluator | None:
        """None where there are no test images."""
        if self.inputs.dataset is None:
            return None
        return Evaluator(self._images, self.world, batch_size=images_at_a_time(self.job.config), teacher=teacher)

    def _teacher(self) -> nn.Module:
        """The frozen teacher: from the user's checkpoint, or trained now and cached."""
        path = self.job.config.teacher.checkpoint or self._made("pretrain", self.job.teacher_directory, "teacher")
        teacher = self._read("teacher", "teacher.checkpoint", path).eval().requires_grad_(False)
        self._teacher_size = count_parameters(teacher)
        return placed_teacher(self.job.config, teacher)

    def _zero_shot_student(self) -> nn.Module:
        """The student to finetune: from the user's file, or of the zero-shot run, which is made now where missing."""
        path = self.job.config.finetune.student or self._made("train", self.job.student_directory, "student")
        return self._read("student", "finetune.student", path)

    @contextmanager
    def _held(self, directory: RunDirectory, patience: float) -> Iterator[None]:
        """These workers alone write to a directory; rank 0 fetches it from its store and uploads to it."""
        with _Lock(directory, self.world, self.stop, patience):
            self.world.from_main(lambda: self._fetch(directory))
            if not self.world.is_main:
                yield
                return
            # Elsewhere the driver is on this machine, and writes the stop file itself.
            asked = directory.stop if self.job.launcher == "ray" and directory.path == self.directory.path else None
            try:
                with directory.mirror.following(asked):
                    yield
            finally:
                directory.mirror.attempt(directory.mirror.push)

    def _fetch(self, directory: RunDirectory) -> None:
        directory.mirror.pull(checkpoints=False)
        if directory.finished() is None:  # it is to go on from its checkpoints
            directory.mirror.pull()

    def _made(self, command: str, directory: str, role: str) -> Path:
        """Weights that another command makes, in a run directory of its own."""
        where = RunDirectory(directory)
        with self._held(where, _TEACHER_PATIENCE_SECONDS):
            self._fit(command, where, NullTracker(), role)
        self.world.barrier()  # rank 0 has written the file
        return where.weights(role)

    def _read(self, role: str, key: str, path: Path | str) -> nn.Module:
        shape, classes = self.inputs.image_shape, self.inputs.num_classes
        return read_network(self.job.config, role, shape, classes, path, key, self.world).to(self.world.device)

    def _loop(self, directory: RunDirectory, task: Task, evaluator: Evaluator | None, tracker: Tracker) -> Outcome:
        config = self.job.config
        history = History(directory.history)
        loop = Loop(
            task,
            self.world,
            CheckpointStore(directory.checkpoints, config.checkpoint.keep, directory.mirror.push_soon),
            Cadence.of(config),
            evaluate=evaluator,
            history=history,
            tracker=tracker if self.world.is_main else NullTracker(),
            stop=self.stop,
            progress=ProgressFile(self.directory.progress if self.world.is_main else None),
            figures=directory.figures,
            preempted=self.preempted,
        )
        return loop.run()

    def _estimates(self, task: Task, student: nn.Module, teacher: nn.Module | None) -> Answer | None:
        """What `estimates.json` tells of a student that has learnt without real images; None without a teacher."""
        if teacher is None or not isinstance(task, ZeroShotTask | PseudoDataTask):
            return None
        shape, device = self.inputs.image_shape, self.world.device
        pixels = uniform_noise(shape, self.inputs.standardise(device), device)
        if isinstance(task, ZeroShotTask):
            return task.estimate(student, task.iterations, pixels)
        return estimate(self.job.config, student, teacher, [normal_noise(shape, device), pixels], self.world)

    def _export(self, directory: RunDirectory, role: str, network: nn.Module) -> str:
        """Saves the trained network with the workers' average statistics; returns the file's SHA-256 (rank 0)."""
        config = self.job.config
        mean, std = self.inputs.mean_std
        section = getattr(config, role)
        about = {
            "arch": section.arch,
            "options": section.options,
            "image_shape": list(self.inputs.image_shape),
            "num_classes": self.inputs.num_classes,
            "mean": mean,
            "std": std,
        }
        if "data.mean" in self.inputs.guessed:  # else: a fact, whoever has said it
            about["normalised_by"] = self.inputs.normalised_by
        with averaged_statistics(network, self.world):
            if not self.world.is_main:
                return ""
            return save_weights(directory.weights(role), network, about)


class _Lock:
    """A run directory's lock, held by rank 0 for all; the others wait until it has it."""

    def __init__(self, directory: RunDirectory, world: World, stop: StopVote, patience: float) -> None:
        self._directory, self._world, self._stop, self._patience = directory, world, stop, patience

    def __enter__(self) -> None:
        """Raises Interrupted when asked to stop while waiting, UserError when patience is at its end."""
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


def _check_batches(config: Config, world: World) -> None:
    for key, size in config.batch_sizes.items():
        if size < world.size:
            raise UserError(f"{key}={size}: is fewer than one image for each of the {world.size} workers")
