"""What surrounds a recorded step, on CPU: inputs at fixed places, decays, metrics. The recording itself is CUDA's."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from tests.support.configs import tiny_config
from tests.support.images import random_dataset
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.models import ImageShape
from zskt_dist.runtime.networks import new_network
from zskt_dist.runtime.supervised import from_scratch
from zskt_dist.runtime.world import World
from zskt_dist.runtime.zero_shot import ZeroShotTask
from zskt_dist.speed import Picks, RecordedTraining, RecordedTransfer, cuda_graphs

PLAIN, CPU = Picks(False, False, False, False, False, None), torch.device("cpu")
SHAPE, ITERATIONS = ImageShape(1, 8, 8), 6


class _Replay:
    """In place of a graph: computes again what was recorded, into the same metrics."""

    def __init__(self, recorded: "cuda_graphs._Recorded") -> None:
        self._learn, self._metrics = recorded._learn, recorded._metrics

    def replay(self) -> None:
        for name, value in self._learn().items():
            self._metrics[name].copy_(value)


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.Stream", MagicMock())
    monkeypatch.setattr("torch.cuda.current_stream", MagicMock())
    monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())
    monkeypatch.setattr(cuda_graphs._Recorded, "_record", lambda recorded: _Replay(recorded))


def _metrics(step: Callable[[int], Metrics]) -> list[dict[str, list[float]]]:
    """Of every iteration, read before the next one overwrites them."""
    return [{name: value.tolist() for name, value in step(i).items()} for i in range(ITERATIONS)]


@pytest.mark.parametrize("mode", ["post_update", "fresh"])
def test_a_recorded_transfer_sees_every_noise_and_rate(tmp_path: Path, mode: str) -> None:
    terms = ("generator_terms.consistency=1.0", f"transfer.pseudo_batch={mode}", "transfer.generator_steps=2")
    config = tiny_config(tmp_path, *terms)
    answers = []
    for recorded in (False, True):
        teacher = new_network(config, "teacher", SHAPE, 5).eval().requires_grad_(False)
        task = ZeroShotTask(config, teacher, new_network(config, "student", SHAPE, 5), SHAPE, World(CPU), picks=PLAIN)
        step = RecordedTransfer(task.transfer).step if recorded else task.transfer.step
        answers.append(_metrics(lambda i, step=step, task=task: step(task.noise(i))))
        assert task.engines["student"].learning_rate < config.optimizer.student_lr
    assert answers[0] == answers[1]


def test_a_recorded_training_sees_every_batch(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "supervised.batch_size=4")
    answers = []
    for recorded in (False, True):
        task = from_scratch(config, "teacher", random_dataset(10, SHAPE, augmentation="crop_flip"), World(CPU))
        if recorded:
            task.training = RecordedTraining(task.training)
        answers.append(_metrics(task.step))
    assert answers[0] == answers[1]
