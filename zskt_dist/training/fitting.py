"""One training from its start to its result, on one worker."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from zskt_dist.data.classes import class_names, names_to_order
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.errors import UserError
from zskt_dist.evaluation.confusion import FILE, confusion_of, write_confusion
from zskt_dist.evaluation.estimates import brief, collapse, headline
from zskt_dist.evaluation.scorer import Evaluator, doubt, images_at_a_time
from zskt_dist.files import write_json
from zskt_dist.models import count_parameters
from zskt_dist.networks.building import examination_of
from zskt_dist.networks.weights import weights_file
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.result import YardstickResult
from zskt_dist.runs.sums import write_recorded
from zskt_dist.speed import fastest_convolutions, multiply_adds
from zskt_dist.tasks.base import Context, Training
from zskt_dist.tracking.base import NullTracker, Tracker
from zskt_dist.tracking.local import History, ProgressFile
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Cadence, Loop, Outcome, blaming_the_teacher
from zskt_dist.training.result import Size, build_result

log = logging.getLogger(__name__)


@dataclass
class Fitting:
    """Runs the loop on the training that a task starts, saves the trained network and builds the result.

    Attributes:
        start: The function `start` of the task's module.
        progress: Where a progress bar in another process reads how far the run is.
    """

    context: Context
    start: Callable[[Context], Training]
    job: Job
    tracker: Tracker
    stop: StopVote
    progress: ProgressFile
    preempted: Callable[[], bool] | None

    def run(self) -> None:
        """Trains, on all workers together; rank 0 writes weights, estimates and at last the result."""
        context, world = self.context, self.context.world
        fastest_convolutions(world.device)
        self._check_batches()
        training = self.start(context)
        if world.is_main and training.attention and training.attention.warning:
            log.warning("%s", training.attention.warning)
        examined_teacher = examination_of(context.teacher) if context.teacher else None
        if world.is_main and examined_teacher and examined_teacher.warning:
            log.warning("the teacher %s", examined_teacher.warning)
        evaluator = self._evaluator()
        of_teacher = evaluator.of_teacher if evaluator else None
        if world.is_main and of_teacher and doubt(of_teacher):
            names = names_to_order(context.config.data, context.inputs.num_classes)  # it reads the labels again
            log.warning("%s", doubt(of_teacher, names))
        inputs = context.inputs
        with blaming_the_teacher(training, context.teacher, inputs.image_shape, inputs.statistics):
            outcome = self._loop(training, evaluator)
        role = context.stage.task.role
        with training.trained() as network:
            sha256 = self._save(role, network)
            if evaluator:
                self._keep_confusion(role, network, evaluator)
            sizes, examined = {role: self._size(network)}, {role: examination_of(network)}
            on_yardstick: YardstickResult | None = None
            if found := training.estimate(network):
                on_yardstick = headline(found, context.yardstick.sha256) if context.yardstick else None
                if world.is_main and (warning := collapse(found)):
                    log.warning("%s", warning)
                outcome = replace(outcome, estimates=outcome.estimates | {"sources": brief(found)})
                if world.is_main:
                    write_json(context.directory.estimates, found)
        accuracy = of_teacher.accuracy if of_teacher else None
        if role == "teacher":
            accuracy = outcome.scores.accuracy if outcome.scores else None
        if context.teacher is not None:
            sizes["teacher"] = self._size(context.teacher)
            examined["teacher"] = examined_teacher
        if world.is_main:
            result = build_result(
                self.job,
                context.stage,
                world,
                outcome,
                training,
                sizes=sizes,
                teacher_accuracy=accuracy,
                sha256=sha256,
                num_classes=context.inputs.num_classes,
                test_images=context.images.test.about() if evaluator else None,
                yardstick=on_yardstick,
                answers={role: str(found) for role, found in examined.items() if found},
            )
            context.directory.finish(result)

    def _size(self, network: nn.Module) -> Size:
        return Size(count_parameters(network), multiply_adds(network, self.context.inputs.image_shape))

    def _check_batches(self) -> None:
        workers = self.context.world.size
        for key, size in self.context.config.batch_sizes.items():
            if size < workers:
                raise UserError(f"{key}={size}: is fewer than one image for each of the {workers} workers")

    def _evaluator(self) -> Evaluator | None:
        """Scores networks on the test images; None where there are none."""
        context = self.context
        if context.inputs.dataset is None:
            return None
        size = images_at_a_time(context.config)
        return Evaluator(context.images, context.world, batch_size=size, teacher=context.teacher)

    def _keep_confusion(self, role: str, network: nn.Module, evaluator: Evaluator) -> None:
        """Writes which classes the networks take for which on the test images."""
        context = self.context
        if evaluator.of_network is None:  # the last checkpoint was that of the last iteration
            evaluator(network)
        scores = {"teacher": evaluator.of_teacher, role: evaluator.of_network}
        counts = {name: score.confusion for name, score in scores.items() if score and score.confusion is not None}
        if context.world.is_main and counts:
            names = class_names(context.config.data, context.inputs.num_classes)
            write_confusion(context.directory.evaluation / FILE, confusion_of(counts, names))

    def _loop(self, training: Training, evaluator: Evaluator | None) -> Outcome:
        context, directory, world = self.context, self.context.directory, self.context.world
        keep = context.config.checkpoint.keep
        loop = Loop(
            training,
            world,
            CheckpointStore(directory.checkpoints, keep, directory.mirror.push_soon),
            Cadence.of(context.config),
            evaluate=evaluator,
            history=History(directory.history),
            tracker=self.tracker if world.is_main else NullTracker(),
            stop=self.stop,
            progress=self.progress,
            figures=directory.figures,
            preempted=self.preempted,
        )
        return loop.run()

    def _save(self, role: str, network: nn.Module) -> str:
        """Saves the trained network with the workers' average statistics; returns the file's SHA-256 (rank 0)."""
        inputs, section = self.context.inputs, getattr(self.context.config, role)
        mean, std = inputs.mean_std
        about = {
            "arch": section.arch,
            "options": section.options,
            "image_shape": list(inputs.image_shape),
            "num_classes": inputs.num_classes,
            "mean": mean,
            "std": std,
        }
        if "data.mean" in inputs.guessed:  # else: a fact, whoever declares it
            about["normalised_by"] = inputs.normalised_by
        with averaged_statistics(network, self.context.world):
            if not self.context.world.is_main:
                return ""
            return write_recorded(self.context.directory.weights(role), weights_file(network, about))
