"""The estimate of an iteration's arithmetic, against torch's own count of an iteration that is done."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support.configs import tiny_config
from zskt_dist.distributed.world import World
from zskt_dist.models import Generator, ImageShape, LeNet
from zskt_dist.networks.building import new_generator, new_network
from zskt_dist.speed import PLAIN, inversion_gflop, iteration_gflop, training_gflop
from zskt_dist.tasks.inversion import InversionTraining
from zskt_dist.tasks.transfer import TransferTraining

SHAPE = ImageShape(3, 16, 16)


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
def test_estimate_is_near_the_count(tmp_path: Path, mode: str) -> None:
    networks = ["teacher.arch=wrn-16-2", "student.arch=wrn-16-1", "generator.channels=[32,16]"]
    config = tiny_config(tmp_path, *networks, f"transfer.pseudo_batch={mode}", "transfer.generator_steps=2")
    teacher = new_network(config, "teacher", SHAPE, 5).eval().requires_grad_(False)
    student = new_network(config, "student", SHAPE, 5)
    task = TransferTraining(config, teacher, student, SHAPE, World(torch.device("cpu")), fast_paths=PLAIN)
    with FlopCounterMode(display=False) as counter:
        task.transfer.learn(task.noise(0))
    with task.trained() as student:
        estimate = iteration_gflop(config, task.engines["generator"].raw, teacher, student, SHAPE)
    assert estimate == pytest.approx(counter.get_total_flops() / 1e9, rel=0.1)


@pytest.mark.parametrize("gap", ["cross_entropy", "none"])
def test_an_inversion_is_counted_up_to_any_of_its_iterations(tmp_path: Path, gap: str) -> None:
    networks = ["teacher.arch=wrn-16-2", "student.arch=wrn-16-1", "generator.channels=[32,16]", "method=inversion"]
    networks += ["inversion.rounds=2", "inversion.warm_up=1", "inversion.steps=2", "inversion.images=6"]
    config = tiny_config(tmp_path, *networks, "inversion.views=3", f"inversion.gap={gap}", "iterations=4")
    teacher = new_network(config, "teacher", SHAPE, 5).eval().requires_grad_(False)
    student = new_network(config, "student", SHAPE, 5)
    statistics = (0.5,) * 3, (0.5,) * 3
    task = InversionTraining(config, teacher, student, SHAPE, 5, statistics, World(torch.device("cpu")))
    generator = new_generator(config, SHAPE)
    done = [inversion_gflop(config, generator, teacher, student, SHAPE, number) for number in range(5)]
    assert done[0] == 0
    assert done[4] == inversion_gflop(config, generator, teacher, student, SHAPE)
    with FlopCounterMode(display=False) as counter:
        for iteration in range(4):
            task.step(iteration)
            assert done[iteration + 1] == pytest.approx(counter.get_total_flops() / 1e9, rel=0.1)


def test_counting_leaves_no_trace(tmp_path: Path) -> None:
    """Neither hooks, nor another mode, nor moved statistics."""
    generator, network = Generator(8, SHAPE, (8, 4)), LeNet(in_channels=3, image_size=(16, 16)).eval()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    iteration_gflop(tiny_config(tmp_path), generator, network, network, SHAPE)
    assert generator.training
    assert not network.training
    assert not any(module._forward_hooks for each in (generator, network) for module in each.modules())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_networks_without_parameters_are_no_work() -> None:
    assert training_gflop(8, torch.nn.Flatten(), SHAPE) == 0
