"""Comparing the students of a sweep without labels: all of them on the same images.

A student's own generators are its own adversaries: a weak one flatters it. So the images on which
students are compared come from the generators of all trials, as they were at several moments of
their runs, and a little from noise: one source among all of them. Every student is compared with its own teacher.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.config.inputs import is_brought
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.image_sources import drawn, generated, normalised_together
from zskt_dist.evaluation.scorer import Scorer
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_generator, read_network
from zskt_dist.networks.weights import WeightsFile, parse_weights
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import is_file
from zskt_dist.runs.sums import files_of, read_recorded
from zskt_dist.streams import Purpose, normal, stream

CPU = World(torch.device("cpu"))


@torch.no_grad()
def pooled_agreement(runs: Sequence[RunDirectory], images: int, seed: int = 0) -> dict[str, float]:
    """Share of pooled images on which each finished run's student predicts what its teacher does.

    Args:
        runs: Of students with images of one shape; those of another are compared among themselves.
        images: In the pool, about; every source gives as many, at least eight.
        seed: Of the pool's noise.

    Returns:
        By run directory; the mean over sources, each of which weighs the same.
    """
    judged = [each for run in runs if (each := _judged(run))]
    scores = {}
    for shape in dict.fromkeys(each.shape for each in judged):
        of_shape = [each for each in judged if each.shape == shape]
        pool = list(_pool({each.run: each.config for each in of_shape}, shape, images, seed))
        # What each teacher predicts: so it is read once, and no network stays on the device beside another.
        taught: dict[str, list[Tensor]] = {}
        for each in of_shape:
            if each.teacher not in taught:
                beliefs = _answers(each.read("teacher", each.weights), pool)
                taught[each.teacher] = [logits.argmax(dim=1) for logits in beliefs]
            own = _answers(each.read("student", each.run.weights("student")), pool)
            by_source = zip(own, taught[each.teacher], strict=True)
            scores[str(each.run.path)] = fmean(Scorer(CPU).add(*pair).score().accuracy for pair in by_source)
    return scores


class _Judged(NamedTuple):
    """A run with a student and a teacher, of which neither has been read."""

    run: RunDirectory
    config: Config
    weights: str
    """The teacher's, which may be a URI."""
    shape: ImageShape
    num_classes: int

    @property
    def teacher(self) -> str:
        """What is the same for runs of one teacher: the file, and all that decides what network it is read into."""
        section = self.config.teacher.model_dump(mode="json", exclude={"checkpoint", "seed"})
        return json.dumps([self.weights, section, self.num_classes], sort_keys=True)

    def read(self, role: str, weights: Path | str) -> nn.Module:
        """As the student's file says: a teacher's need not tell for which images it is."""
        return read_network(self.config, role, self.shape, self.num_classes, weights, f"{role} weights").eval()


def _judged(run: RunDirectory) -> _Judged | None:
    config, weights = run.read_config(), run.teacher_weights()
    if config is None or weights is None or not (is_brought(weights) or is_file(weights, "teacher weights")):
        return None
    about: dict[str, Any] = WeightsFile.open(run.weights("student"), "student weights").about
    return _Judged(run, config, weights, ImageShape(*about["image_shape"]), about["num_classes"])


def _answers(network: nn.Module, pool: Sequence[Tensor]) -> list[Tensor]:
    """Logits [B, classes] of each batch; images come from the CPU and logits go there, whatever the device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    return [network(x.to(device)).cpu() for x in pool]


def _pool(runs: dict[RunDirectory, Config], shape: ImageShape, images: int, seed: int) -> Iterator[Tensor]:
    """Images [B, C, H, W] in normalised input units: of each generator snapshot, and last of noise."""
    files = [(run, path) for run in runs for path in files_of(run.snapshots, "*.safetensors")]
    count = max(images // (len(files) + 1), 8)
    for number, (run, path) in enumerate(files, start=1):
        yield _images(runs[run], path, shape, stream(seed, Purpose.HELD_OUT, 0, number), count)
    yield torch.from_numpy(normal(stream(seed, Purpose.HELD_OUT, 0, 0, 1), count, *shape))


def _images(config: Config, path: Path, shape: ImageShape, rng: np.random.Generator, count: int) -> Tensor:
    generator = new_generator(config, shape)
    generator.load_state_dict(parse_weights(read_recorded(path, "restore it")))
    source = generated(generator, 0, config.generator.z_dim, torch.device("cpu"))
    return torch.cat(list(drawn(source, rng, count, normalised_together(config))))
