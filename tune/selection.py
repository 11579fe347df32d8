"""Comparing the students of a sweep without labels: all of them on the same images.

A student's own generators are its own adversaries: a weak one flatters it. So the images on which
students are compared come from the generators of all trials, as they were at several moments of
their runs, and a little from noise: one source among all of them. Every student is compared with its own teacher.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zskt_dist.algorithms.scores import agreement_sums
from zskt_dist.config import Config
from zskt_dist.models import ImageShape
from zskt_dist.runtime.directory import RunDirectory
from zskt_dist.runtime.image_sources import drawn, generated, normalised_together
from zskt_dist.runtime.networks import load_trained, new_generator, read_network
from zskt_dist.runtime.storage import is_file
from zskt_dist.runtime.weights import parse_weights, read_about
from zskt_dist.streams import Purpose, normal, stream


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pairs = {}
    for run in runs:
        config, where = run.read_config(), run.teacher_weights()
        if config is not None and where is not None and is_file(where, "teacher weights"):
            student, shape = load_trained(config, "student", run.weights("student"))
            classes: Any = read_about(run.weights("student"))["num_classes"]
            # Its own file need not say for which images it is.
            teacher = read_network(config, "teacher", shape, classes, where, "teacher weights").eval()
            pairs[run] = (config, teacher.to(device), student.to(device), shape)
    scores = {}
    for shape in dict.fromkeys(shape for *_, shape in pairs.values()):
        of_shape = {run: pair for run, pair in pairs.items() if pair[-1] == shape}
        pool = list(_pool({run: pair[0] for run, pair in of_shape.items()}, shape, images, seed))
        for run, (_, teacher, student, _) in of_shape.items():
            sums = [agreement_sums(student(x), teacher(x))[0] for x in (x.to(device) for x in pool)]
            scores[str(run.path)] = fmean((hits / len(x)).item() for hits, x in zip(sums, pool, strict=True))
    return scores


def _pool(runs: dict[RunDirectory, Config], shape: ImageShape, images: int, seed: int) -> Iterator[Tensor]:
    """Images [B, C, H, W] in normalised input units: of each generator snapshot, and last of noise."""
    files = [(run, path) for run in runs for path in sorted(run.snapshots.glob("*.safetensors"))]
    count = max(images // (len(files) + 1), 8)
    for number, (run, path) in enumerate(files, start=1):
        yield _images(runs[run], path, shape, stream(seed, Purpose.HELD_OUT, 0, number), count)
    yield torch.from_numpy(normal(stream(seed, Purpose.HELD_OUT, 0, 0, 1), count, *shape))


def _images(config: Config, path: Path, shape: ImageShape, rng: np.random.Generator, count: int) -> Tensor:
    generator = new_generator(config, shape)
    generator.load_state_dict(parse_weights(path.read_bytes()))
    source = generated(generator, 0, config.generator.z_dim, torch.device("cpu"))
    return torch.cat(list(drawn(source, rng, count, normalised_together(config))))
