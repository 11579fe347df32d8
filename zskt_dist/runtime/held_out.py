"""Judging a student without labels and without real images: does it agree with its teacher where it has not learnt?

Zero-shot means that there is no validation set. What there is: the teacher, and generators. So a
student is asked about fresh pseudo-images of the generator as it was at several moments of the
run, for the newest one alone shows only what the student is worst at now, and about noise.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.scores import agreement_sums
from zskt_dist.config import Config
from zskt_dist.files import read_bytes
from zskt_dist.models import ImageShape
from zskt_dist.runtime.statistics import averaged_statistics
from zskt_dist.runtime.weights import parse_weights, save_weights
from zskt_dist.runtime.world import World
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tracking.base import Row

State = dict[str, Tensor]

LABEL_FREE = ("label_free_score", "held_out_agreement", "noise_agreement", "held_out_kl")
"""What `HeldOut.judge` answers."""


class HeldOut:
    """Compares a student with its teacher on images that neither data nor training has shown it.

    Args:
        generator: Shows the generator as it is now, to all workers together; its state is copied after every
            `iterations / evaluation.snapshots` iterations.
        teacher: Frozen; [B, C, H, W] to logits, as the student that is judged.
        folder: Where rank 0 keeps the snapshots, as safetensors; None: in memory only.
    """

    def __init__(
        self,
        config: Config,
        generator: Callable[[], AbstractContextManager[nn.Module]],
        teacher: nn.Module,
        image_shape: ImageShape,
        world: World,
        folder: Path | None = None,
    ) -> None:
        self._config, self._generator, self._teacher = config, generator, teacher
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
                save_weights(snapshot_path(self._folder, iteration), generator, about)

    @torch.no_grad()
    def judge(self, student: nn.Module, iteration: int) -> Row:
        """Label-free scores after `iteration` iterations; all workers call it together.

        Returns:
            `held_out_agreement`, mean over the snapshots so far; `noise_agreement`, on standard normal
            pixels; `held_out_kl`, mean KL(teacher || student) in nats; and `label_free_score`, the mean
            agreement over all these sources of images. Nothing with `evaluation.held_out_images=0`.
        """
        size = self._config.evaluation.held_out_images
        if size == 0:
            return {}
        sums: list[Tensor] = []
        with averaged_statistics(student, self._world):
            for number, generator in enumerate(chain(self._generators(iteration), [None])):
                sums.append(torch.zeros(2, dtype=torch.float64, device=self._world.device))
                for x in self._images(generator, number):
                    mine = x[self._world.rank :: self._world.size]
                    sums[number] += agreement_sums(student(mine), self._teacher(mine))
        shares = (self._world.sum(torch.stack(sums)) / size).tolist()
        agreements, kls = zip(*shares, strict=True)
        return {
            "label_free_score": sum(agreements) / len(agreements),
            "held_out_agreement": sum(agreements[:-1]) / len(agreements[:-1]),
            "noise_agreement": agreements[-1],
            "held_out_kl": sum(kls) / len(kls),
        }

    def _generators(self, iteration: int) -> Iterator[nn.Module]:
        """The generator at the moments so far, one after the other in the same memory, and as it is now."""
        with self._generator() as generator:
            now, then = (copy.deepcopy(generator) for _ in range(2))
        for moment in self.moments:
            if moment < iteration and (state := self._snapshot(moment)) is not None:
                then.load_state_dict(state)
                yield then
        yield now

    def _snapshot(self, moment: int) -> State | None:
        """From memory, or after a restart from rank 0's file; None where that is gone."""
        if moment not in self._snapshots:
            content = None
            if self._world.is_main and self._folder is not None:
                content = read_bytes(snapshot_path(self._folder, moment))
            content = self._world.broadcast(content)
            self._snapshots[moment] = None if content is None else parse_weights(content)
        return self._snapshots[moment]

    def _images(self, generator: nn.Module | None, number: int) -> Iterator[Tensor]:
        """Batches [B, C, H, W] of a source, the same whenever they are asked for; None: standard normal noise.

        B is that of the whole batch or of a micro-batch, on any number of workers.
        """
        shape = self._image_shape if generator is None else (self._config.generator.z_dim,)
        rng = stream(self._config.seed, Purpose.HELD_OUT, number)
        left = self._config.evaluation.held_out_images
        most = min(self._config.batch_size, self._config.engine.micro_batch or self._config.batch_size)
        while left > 0:
            z = torch.from_numpy(normal(rng, min(left, most), *shape)).to(self._world.device)
            # In training mode: batch statistics as in training, and a copy, so that nothing of the run is touched.
            yield z if generator is None else generator(z)
            left -= len(z)


def snapshot_moments(iterations: int, count: int) -> list[int]:
    """Iterations after which a snapshot is taken: `count` of them evenly spaced, the last at the end."""
    return sorted({iterations * number // count for number in range(1, count + 1)} - {0}) if count else []


def snapshot_path(folder: Path, iteration: int) -> Path:
    return folder / f"generator_{iteration:08d}.safetensors"


def generator_drift(history: list[Row]) -> float | None:
    """How much the generator's loss still moves: mean over the last fifth of its rows minus that of the fifth before.

    Near zero, measured by the scatter of the rows, the game has reached its plateau. None for fewer than ten rows.
    """
    losses = [row["generator_loss"] for row in history if "generator_loss" in row]
    fifth = len(losses) // 5
    if fifth < 2:
        return None
    return sum(losses[-fifth:]) / fifth - sum(losses[-2 * fifth : -fifth]) / fifth
