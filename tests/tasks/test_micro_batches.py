"""No forward pass is of more images than a micro-batch, whatever it is for."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.support.configs import tiny_config
from tests.support.jobs import evaluate_in
from zskt_dist.config import with_overrides
from zskt_dist.distributed.world import World
from zskt_dist.models import Generator, ImageShape, LeNet
from zskt_dist.networks.building import new_network
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tasks.transfer import TransferTraining
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
_SHORT = ("iterations=1", "supervised.iterations=1", "evaluation.every=0", "evaluation.held_out_images=10")


@contextmanager
def _batch_sizes() -> Iterator[list[int]]:
    """Of all forward passes of generators and classifiers in the block."""
    sizes: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, Generator | LeNet):
            sizes.append(len(inputs[0]))

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield sizes
    finally:
        handle.remove()


def test_a_run_and_its_evaluation(tmp_path: Path) -> None:
    Worker(Job.plan("train", tiny_config(tmp_path, *_SHORT, "name=first")), ALONE).run()  # trains the teacher
    settings = ("engine.micro_batch=3", "evaluation.noise_images=10", "transitions.images=0")
    config = tiny_config(tmp_path, *_SHORT, *settings, "name=second")
    job = Job.plan("train", config)
    directory = job.directory
    directory.begin("train", config, job.goal.inputs.get("teacher"))
    with _batch_sizes() as sizes:
        Worker(job, ALONE).run()
        config = with_overrides(config, [f"teacher.checkpoint={directory.teacher_weights()}"])
        evaluate_in(directory.path, config, ALONE)
    assert max(sizes) == 3


def test_pictures_show_what_is_normalised_together_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Tensor] = []
    monkeypatch.setattr("zskt_dist.tasks.transfer.save_image_grid", lambda images, path: shown.append(images))
    config = tiny_config(tmp_path, "engine.micro_batch=3", "tracking.images=8")
    shape = ImageShape(1, 8, 8)
    teacher = new_network(config, "teacher", shape, 5).eval().requires_grad_(False)
    task = TransferTraining(config, teacher, new_network(config, "student", shape, 5), shape, ALONE)
    assert task.picture(tmp_path / "grid.png")
    generator = copy.deepcopy(task.engines["generator"].raw)
    z = torch.from_numpy(normal(stream(config.seed, Purpose.FIGURES), 8, 8))
    with torch.no_grad():
        expected = torch.cat([generator(part) for part in (z[:3], z[3:6], z[6:])])
    torch.testing.assert_close(shown[0], expected)
