"""The estimate of memory against what autograd saves and what a process takes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from benchmarks.memory import Point, estimated, measured
from tests.support.configs import tiny_config
from tests.support.saved import saved_bytes
from zskt_dist.config import load_config
from zskt_dist.data.pool import VIEW_BYTES
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_generator, new_network, with_checkpointing
from zskt_dist.tasks.memory import Memory, estimate_memory
from zskt_dist.tasks.transfer import TransferTraining

SHAPE, CLASSES = ImageShape(3, 32, 32), 10
ALONE = World(torch.device("cpu"))


def _memory(*overrides: str) -> Memory:
    pair = ["teacher.arch=wrn-16-2", "student.arch=wrn-16-1", "batch_size=16"]
    return estimate_memory(load_config(None, [*pair, *overrides]), SHAPE, CLASSES)


def test_networks_are_counted_to_the_byte() -> None:
    """Parameters, their gradients and two moments of Adam, in float32; statistics; and a step count of each tensor."""
    memory = _memory()
    config = load_config(None, ["teacher.arch=wrn-16-2", "student.arch=wrn-16-1"])
    teacher, student = (new_network(config, role, SHAPE, CLASSES) for role in ("teacher", "student"))
    for name, network, copies in (
        ("teacher", teacher, 1),
        ("student", student, 4),
        ("generator", new_generator(config, SHAPE), 4),
    ):
        parameters = list(network.parameters())
        steps = 4 * len(parameters) if copies == 4 else 0
        buffers = sum(buffer.nbytes for buffer in network.buffers())
        assert getattr(memory, name) == copies * sum(p.nbytes for p in parameters) + buffers + steps


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_that_autograd_saves_and_the_largest_held_for_a_moment(checkpointing: bool) -> None:
    config = load_config(
        None,
        [
            "teacher.arch=wrn-16-2",
            "student.arch=wrn-16-1",
            "loss.beta=0",
            f"engine.activation_checkpointing={str(checkpointing).lower()}",
        ],
    )
    teacher, student = (new_network(config, role, SHAPE, CLASSES) for role in ("teacher", "student"))
    generator = new_generator(config, SHAPE)
    generator.low_resolution = True  # as a run's
    teacher.eval()
    for network in (teacher, student):
        network.requires_grad_(False)
    with_checkpointing(config, teacher, student, generator)

    def generator_step() -> tuple[Tensor, Tensor]:
        x = generator(torch.randn(16, 100))
        return teacher(x), student(x)

    saved = saved_bytes(generator_step)
    activations = _memory("loss.beta=0", f"engine.activation_checkpointing={str(checkpointing).lower()}").generator_step
    # What one block needs to be recomputed is a large part of what checkpointing leaves.
    assert 0.9 * saved < activations < (3 if checkpointing else 1.25) * saved


def test_switches_and_workers_count() -> None:
    whole = _memory()
    assert _memory("engine.micro_batch=8").activations < 0.6 * whole.activations
    assert _memory("engine.micro_batch=100") == whole
    assert _memory("engine.activation_checkpointing=true").activations < 0.5 * whole.activations
    assert _memory("launch.workers=2") == _memory("batch_size=8")
    assert _memory("launch.workers=[1,2]", "launch.kind=ray") == whole  # the fewest workers have the largest shares
    assert _memory("transfer.student_steps=50", "transfer.generator_steps=3", "transfer.pseudo_batch=fresh") == _memory(
        "transfer.pseudo_batch=fresh"
    )


def test_micro_batches_that_are_not_simulated_hold_their_images_only() -> None:
    """64 images in micro-batches of 2, of which 4 are simulated."""
    many, few = _memory("batch_size=64", "engine.micro_batch=2"), _memory("batch_size=4", "engine.micro_batch=2")
    assert many.generator_step == few.generator_step
    assert many.student_step == few.student_step + 60 * 4 * (3 * 32 * 32 + 2 * 10)


def test_an_inversion_is_counted_part_by_part() -> None:
    """Its student learns as that of pseudo-data does; half the parts hold half the activations, one after the other."""
    inversion = ("method=inversion", "inversion.images=16", "inversion.rounds=5")
    two, one = _memory(*inversion), _memory(*inversion, "inversion.parts=1")
    assert 0.45 * one.generator_step < two.generator_step < 0.6 * one.generator_step
    assert two.student_step == pytest.approx(one.student_step, rel=0.01)
    assert two.pool == 5 * 2 * 16 * (3 * 32 * 32 + 8 * (4 * 10 + VIEW_BYTES))
    assert _memory(*inversion, "inversion.pool_mib=1", "inversion.rounds=1000").pool == 2**20
    without = _memory(*inversion, "inversion.parts=1", "inversion.gap=none").generator_step
    assert without < one.generator_step
    parameters = sum(p.nbytes for p in new_generator(load_config(None, []), SHAPE).parameters())
    assert 4 * parameters < two.generator < 4.1 * parameters


def test_images_of_the_user_are_in_the_pool(tmp_path: Path) -> None:
    """Two files and the five rows of a third; they are counted, not read."""
    for name in ("a.png", "b.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    pq.write_table(pa.table({"image": [b""] * 5}), tmp_path / "c.parquet")
    inversion = ("method=inversion", "inversion.images=16", "inversion.rounds=5")
    seeded = _memory(*inversion, f"inversion.seed_images={tmp_path}").pool
    assert seeded == (5 * 2 * 16 + 7) * (3 * 32 * 32 + 8 * (4 * 10 + VIEW_BYTES))


def test_nothing_is_left_behind() -> None:
    """No fake tensors, and modules move again."""
    _memory()
    network = nn.Linear(2, 2).to(torch.float64)
    assert network.weight.dtype == torch.float64
    assert type(torch.zeros(1)) is Tensor


@pytest.mark.parametrize(
    "changes", [{}, pytest.param({"checkpointing": True, "micro_batch": 24}, marks=pytest.mark.slow)]
)
def test_estimate_against_the_resident_memory_of_a_process(changes: dict[str, int]) -> None:
    point = Point(32, 10, "wrn-16-2", "wrn-16-1", 48, **changes)
    assert 0.6 < estimated(point) / measured(point, gives_back=True)["bytes"] < 1.3


@pytest.mark.slow
def test_large_images_of_a_thousand_classes() -> None:
    """Two iterations of a ResNet-50 teacher at 3x224x224, in micro-batches."""
    point = Point(224, 1000, "torchvision:resnet50", "torchvision:resnet18", 4, micro_batch=2, checkpointing=True)
    assert measured(point, gives_back=False)["bytes"] < 2 * 2**30
    large = Point(224, 1000, "torchvision:resnet50", "torchvision:resnet18", 128, micro_batch=16)
    assert estimated(large) < 8 * 2**30


@pytest.mark.parametrize("mode", ["post_update", "pre_update"])
@pytest.mark.parametrize("micro_batch", ["null", "3"])
def test_checkpointing_changes_no_bit_of_a_run(tmp_path: Path, mode: str, micro_batch: str) -> None:
    states = []
    for checkpointing in ("false", "true"):
        config = tiny_config(
            tmp_path,
            "teacher.arch=wrn-10-1",
            "student.arch=wrn-10-1",
            f"transfer.pseudo_batch={mode}",
            f"engine.micro_batch={micro_batch}",
            f"engine.activation_checkpointing={checkpointing}",
        )
        shape = ImageShape(1, 8, 8)
        teacher = new_network(config, "teacher", shape, 10).eval().requires_grad_(False)
        task = TransferTraining(config, teacher, new_network(config, "student", shape, 10), shape, ALONE)
        metrics = [task.transfer.step(task.noise(iteration)) for iteration in range(3)]
        states.append({**metrics[-1], **task.engines["student"].raw.state_dict(), **teacher.state_dict(prefix="t.")})
        states[-1] |= task.engines["generator"].raw.state_dict(prefix="g.")
    assert all(torch.equal(value, states[0][name]) for name, value in states[1].items())
