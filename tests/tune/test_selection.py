"""Students are compared on one pool of images: the score of each is the agreement counted source by source."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.configs import tiny_config
from tune.selection import pooled_agreement
from zskt_dist.runtime.directory import RunDirectory
from zskt_dist.runtime.job import Job
from zskt_dist.runtime.networks import load_trained
from zskt_dist.runtime.worker import Worker
from zskt_dist.runtime.world import World
from zskt_dist.streams import Purpose, normal, stream

ALONE = World(torch.device("cpu"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunDirectory]:
    folder = tmp_path_factory.mktemp("pool")
    directories = []
    for name, *overrides in (("a",), ("b", "iterations=2", "evaluation.snapshots=1")):
        job = Job.plan("train", tiny_config(folder, f"name={name}", "teacher.seed=0", *overrides))
        directory = RunDirectory(Path(job.directory))
        directory.begin("train", job.config, job.teacher_weights)
        Worker(job, ALONE).run()
        directories.append(directory)
    return directories


def _predictions(run: RunDirectory, role: str, x: torch.Tensor) -> np.ndarray:
    config = run.read_config()
    assert config
    path = run.weights("student") if role == "student" else run.teacher_weights()
    assert path
    return np.array([int(load_trained(config, role, Path(path))[0](image[None]).argmax()) for image in x])


def test_noise_alone_is_counted_image_by_image(runs: list[RunDirectory], tmp_path: Path) -> None:
    """Without snapshots the pool is noise."""
    run = runs[0]
    hidden = run.snapshots.rename(tmp_path / "hidden")
    try:
        scores = pooled_agreement([run], 24, seed=3)
    finally:
        hidden.rename(run.snapshots)
    noise = torch.from_numpy(normal(stream(3, Purpose.HELD_OUT, 0, 0, 1), 24, 1, 8, 8))
    expected = (_predictions(run, "student", noise) == _predictions(run, "teacher", noise)).mean()
    assert scores == {str(run.path): pytest.approx(expected)}


def test_all_are_judged_on_the_images_of_all(runs: list[RunDirectory]) -> None:
    alone, together = pooled_agreement(runs[:1], 480), pooled_agreement(runs, 480)
    assert set(together) == {str(run.path) for run in runs}
    assert together[str(runs[0].path)] != alone[str(runs[0].path)], "the other's generator has joined the pool"
    assert pooled_agreement(runs, 480) == together
    assert all(0 <= score <= 1 for score in together.values())


def test_a_run_whose_teacher_is_gone_has_no_score(runs: list[RunDirectory], tmp_path: Path) -> None:
    config = runs[0].read_config()
    assert config
    orphan = RunDirectory(tmp_path / "orphan")
    orphan.begin("train", config, str(tmp_path / "gone.safetensors"))
    assert pooled_agreement([orphan], 48) == {}
