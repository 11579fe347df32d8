"""The three steps of CONTRIBUTING: a task that nobody but the registry knows trains, resumes and has a result."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.support.configs import tiny_config
from tests.support.jobs import ALONE
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.data import on_device
from zskt_dist.errors import Interrupted
from zskt_dist.models import ImageShape, TappedNetwork
from zskt_dist.networks.building import new_network
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tasks.base import Context, Lines, PlainTraining, Training
from zskt_dist.tasks.registry import TASKS, Need, Task
from zskt_dist.tasks.stages import Stage, stages
from zskt_dist.tasks.supervised import engine_for
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker


class NoiseTraining(PlainTraining):
    """Step 1 and 2: the student learns the teacher's logits on noise."""

    speed = "plain"

    def __init__(self, context: Context) -> None:
        config, inputs, teacher = context.config, context.inputs, context.teacher
        assert teacher is not None
        student = new_network(config, "student", inputs.image_shape, inputs.num_classes)
        engine = engine_for(context, TappedNetwork(student), torch.optim.Adam, lambda iteration: 1.0, config.batch_size)
        super().__init__("student", "student", engine, config.iterations)
        self._context, self._teacher = context, teacher

    def step(self, iteration: int) -> Metrics:
        config, world = self._context.config, self._context.world
        rng = stream(config.seed, Purpose.IMAGE_NOISE, iteration)
        x: Tensor = on_device(normal(rng, config.batch_size, *self._context.inputs.image_shape), world.device)
        loss = (self.engine(x).logits - self._teacher(x)).square().mean()
        self.engine.step(loss)
        return {"loss": loss.detach()}


def _module() -> ModuleType:
    module = ModuleType("noise_task")

    def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
        return [("noise", f"{stage.config.iterations} steps")]

    def start(context: Context) -> Training:
        return NoiseTraining(context)

    module.describe, module.start = describe, start  # type: ignore[attr-defined]
    return module


@pytest.fixture
def noise_task(monkeypatch: pytest.MonkeyPatch) -> Task:
    """Step 3."""
    task = Task(
        name="noise",
        command="distill",
        module="noise_task",
        reads=("seed", "iterations", "batch_size", "student"),
        needs=(Need("teacher", "teacher.checkpoint", made_by="pretrain"),),
        label="noise-",
        serves=lambda config: config.experiment == "noise",
    )
    monkeypatch.setitem(sys.modules, "noise_task", _module())
    others = {name: each for name, each in TASKS.items() if name != "distill"}
    monkeypatch.setattr("zskt_dist.tasks.registry.TASKS", others | {"noise": task})
    monkeypatch.setattr("zskt_dist.tasks.stages.TASKS", others | {"noise": task})
    return task


def test_it_is_planned_trained_and_resumed(noise_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, "experiment=noise", "supervised.iterations=4")
    assert [stage.name for stage in stages("distill", config)] == ["pretrain", "noise"]
    whole = Job.plan("distill", config)
    Worker(whole, ALONE).run()
    expected = whole.directory.finished()
    assert expected
    assert expected["student"]["accuracy_last"] is not None
    assert expected["teacher"]["accuracy"] is not None

    again = Job.plan("distill", tiny_config(tmp_path, "experiment=noise", "supervised.iterations=4", "name=again"))
    step = NoiseTraining.step

    def stopping(training: NoiseTraining, iteration: int) -> Metrics:
        again.directory.stop.touch()
        return step(training, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(NoiseTraining, "step", stopping)
        patch.setattr("zskt_dist.distributed.stop_vote._FILE_POLL_SECONDS", 0.0)
        with pytest.raises(Interrupted):
            Worker(again, ALONE).run()
    again.directory.stop.unlink()
    Worker(again, ALONE).run()
    result = again.directory.finished()
    assert result
    assert 0 < result["resumed_from"] < config.iterations
    assert result["student"]["sha256"] == expected["student"]["sha256"]
