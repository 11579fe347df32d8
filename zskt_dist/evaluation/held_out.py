"""Label-free scores of a student: its agreement with the teacher on images that it has not learnt from.

Zero-shot means that there is no validation set, only the teacher and generators. So the student is
compared with the teacher on noise and on fresh pseudo-images of the generator at several moments of
the run: the newest generator alone shows only what the student is worst at now.
"""

import copy
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.image_sources import ImageSource, answers, generated, normal_noise
from zskt_dist.evaluation.scorer import Score, Scorer
from zskt_dist.files import read_bytes
from zskt_dist.models import ImageShape, Statistics
from zskt_dist.networks.building import new_generator
from zskt_dist.networks.weights import parse_weights, weights_file
from zskt_dist.runs.sums import files_of, problem_of, write_recorded
from zskt_dist.tracking.base import Row

log = logging.getLogger(__name__)

State = dict[str, Tensor]

LABEL_FREE = ("yardstick_agreement", "label_free_score", "held_out_agreement", "noise_agreement", "held_out_kl")
"""Names of the scores that need no labels: of the yardstick, and those that `HeldOut.judge` returns."""


def ranked_by(scores: Mapping[str, Any]) -> float | None:
    """What students of one teacher are ranked by without labels: agreement on the yardstick, else `label_free_score`.

    Else `noise_agreement`, for `method=inversion` with a teacher without batch norm has nothing better; else None.
    """
    names = ("yardstick_agreement", "label_free_score", "noise_agreement")
    return next((scores[name] for name in names if name in scores), None)


class HeldOut:
    """Compares a student with its teacher on images that are not real and were not used in training.

    Args:
        generator: Gives the present generator to all workers together; its state is copied after every
            `iterations / evaluation.snapshots` iterations.
        teacher: Frozen; [B, C, H, W] to logits.
        folder: Where rank 0 keeps the snapshots, as safetensors; None: in memory only.
        statistics: Mean and standard deviation of the images, on which noise depends; None: they are normalised.
    """

    def __init__(
        self,
        config: Config,
        generator: Callable[[], AbstractContextManager[nn.Module]],
        teacher: nn.Module,
        image_shape: ImageShape,
        world: World,
        folder: Path | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self._noise = normal_noise(image_shape, world.device, statistics)
        self._config, self._generator, self.teacher = config, generator, teacher
        self._image_shape, self._world, self._folder = image_shape, world, folder
        self.moments = snapshot_moments(config.iterations, config.evaluation.snapshots)
        self._snapshots: dict[int, State | None] = {}

    def after(self, iteration: int) -> None:
        """Takes a snapshot where one is due after `iteration` iterations."""
        if iteration not in self.moments or not self._config.evaluation.held_out_images:
            return
        with self._generator() as generator:
            self._snapshots[iteration] = {k: v.detach().cpu().clone() for k, v in generator.state_dict().items()}
            if self._folder is not None and self._world.is_main:
                about = {"z_dim": self._config.generator.z_dim, "image_shape": list(self._image_shape)}
                write_recorded(snapshot_path(self._folder, iteration), weights_file(generator, about))

    @torch.no_grad()
    def judge(self, student: nn.Module, iteration: int) -> Row:
        """Label-free scores after `iteration` iterations; all workers call it together.

        Returns:
            `held_out_agreement`, mean over the snapshots so far; `noise_agreement`, on standard normal
            pixels; `held_out_kl`, mean KL(teacher || student) in nats; and `label_free_score`, the mean
            agreement over all these sources of images. Nothing with `evaluation.held_out_images=0`.
        """
        if self._config.evaluation.held_out_images == 0:
            return {}
        scores: list[Score] = []
        with averaged_statistics(student, self._world):
            for _, logits in answers(self._config, self.sources(iteration), self._world, student, self.teacher):
                scorer = Scorer(self._world)
                for of_student, of_teacher in logits:
                    scorer.add(of_student, of_teacher)
                scores.append(scorer.score())
        agreements = [score.accuracy for score in scores]
        return {
            "label_free_score": sum(agreements) / len(agreements),
            "held_out_agreement": sum(agreements[:-1]) / len(agreements[:-1]),
            "noise_agreement": agreements[-1],
            "held_out_kl": sum(score.kl for score in scores) / len(scores),
        }

    def sources(self, iteration: int) -> list[ImageSource]:
        """The generator's snapshots so far, the generator after `iteration`, and last standard normal noise."""
        with self._generator() as generator:
            # In training mode, for batch statistics as in training; on copies, so that the run stays as it is.
            now, then = (copy.deepcopy(generator) for _ in range(2))
        z_dim, device = self._config.generator.z_dim, self._world.device
        moments = [moment for moment in self.moments if moment < iteration]
        states = {moment: state for moment in moments if (state := self._snapshot(moment)) is not None}
        past = [generated(then, moment, z_dim, device, state) for moment, state in states.items()]
        return [*past, generated(now, iteration, z_dim, device), self._noise]

    def _snapshot(self, moment: int) -> State | None:
        """A snapshot from memory, or after a restart from rank 0's file; None where the file is missing."""
        if moment not in self._snapshots:
            content = None
            if self._world.is_main and self._folder is not None:
                content = _read(snapshot_path(self._folder, moment))
            content = self._world.broadcast(content)
            self._snapshots[moment] = None if content is None else parse_weights(content)
        return self._snapshots[moment]


def _read(path: Path) -> bytes | None:
    """A snapshot; None with a warning where it is lost, and without where `evaluation.snapshots` was another."""
    if path not in files_of(path.parent, path.name):
        return None
    content = read_bytes(path)
    if problem := problem_of(path, content):
        log.warning("%s %s; the label-free scores leave it out", path, problem)
        return None
    return content


def stored_sources(
    config: Config, folder: Path, image_shape: ImageShape, world: World, statistics: Statistics | None
) -> list[ImageSource]:
    """The `HeldOut.sources` at the end of a run, from the snapshots in its folder, which rank 0 reads.

    All workers call it together; without snapshots there is noise alone.
    """
    paths = world.from_main(lambda: files_of(folder, "generator_*.safetensors"))
    sources = []
    for path in paths:
        content = world.from_main(partial(_read, path))
        if content is None:
            continue
        generator = new_generator(config, image_shape).to(world.device)
        generator.load_state_dict(parse_weights(content))
        moment = int(path.stem.rsplit("_", 1)[1])
        sources.append(generated(generator, moment, config.generator.z_dim, world.device))
    return [*sources, normal_noise(image_shape, world.device, statistics)]


def snapshot_moments(iterations: int, count: int) -> list[int]:
    """Iterations after which a snapshot is taken: `count` of them evenly spaced, the last at the end."""
    return sorted({iterations * number // count for number in range(1, count + 1)} - {0}) if count else []


def snapshot_path(folder: Path, iteration: int) -> Path:
    return folder / f"generator_{iteration:08d}.safetensors"


def generator_drift(history: list[Row]) -> float | None:
    """Change of the generator's loss: its mean over the last fifth of the rows minus that over the fifth before.

    If it is near zero, compared with the scatter of the rows, the loss has reached a plateau. None for under ten rows.
    """
    losses = [row["generator_loss"] for row in history if "generator_loss" in row]
    fifth = len(losses) // 5
    if fifth < 2:
        return None
    return sum(losses[-fifth:]) / fifth - sum(losses[-2 * fifth : -fifth]) / fifth
