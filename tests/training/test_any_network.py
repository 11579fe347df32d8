"""Networks that are not our own, through whole runs: what they draw, what they do not use, what they return."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from zskt_dist.config import load_config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network, outlines, seed_layers
from zskt_dist.networks.weights import read_about, read_weights
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.speed import fold_batch_norm, iteration_gflop
from zskt_dist.tasks.memory import estimate_memory
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Loop
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
CAREFUL = "tests.support.user_networks:Careful"  # dropout, a head that is not used, and a dataclass for an answer
CHANGES = (f"student.arch={CAREFUL}", "student.options.width=3", "loss.beta=0", "distill.beta=0", "iterations=7")
FEW = ("data.images_per_class=3", "finetune.iterations=6", "finetune.batch_size=8", "finetune.batch_norm=train")


class Killed(RuntimeError):
    """Stands for SIGKILL."""


def _run(world: World, folder: Path, command: str = "train", *overrides: str) -> RunDirectory:
    job = Job.plan(command, tiny_config(folder, *CHANGES, *FEW, "name=run", *overrides))
    Worker(job, world).run()
    return job.directory


def _killed(world: World, folder: Path, command: str, phase: str, *overrides: str) -> None:
    """Dies after the first checkpoint of `phase`, which is of iteration 3."""
    with pytest.MonkeyPatch.context() as patch:
        report = Loop._report

        def dying(loop: Loop, done: int, values: dict[str, float]) -> None:
            if loop.training.phase == phase and done >= 5:
                raise Killed
            report(loop, done, values)

        patch.setattr(Loop, "_report", dying)
        with pytest.raises(Killed):
            _run(world, folder, command, "tracking.log_every=1", *overrides)


def _sha256(directory: RunDirectory) -> str:
    result = directory.finished()
    assert result
    return str(result["student"]["sha256"])


@pytest.mark.parametrize(
    ("command", "phase"),
    [("train", "student"), ("distill", "distill"), ("finetune", "finetune"), ("pretrain", "scratch")],
)
def test_layers_that_draw_go_on_with_the_same_bits(tmp_path: Path, command: str, phase: str) -> None:
    overrides = ("supervised.network=student",) if command == "pretrain" else ()
    expected = _run(ALONE, tmp_path / "whole", command, *overrides)
    _killed(ALONE, tmp_path / "killed", command, phase, *overrides)
    torch.manual_seed(99)
    continued = _run(ALONE, tmp_path / "killed", command, *overrides)
    assert (continued.finished() or {})["resumed_from"] == 3
    assert _sha256(continued) == _sha256(expected)


def test_dropout_takes_part(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    with_it, without = _run(ALONE, tmp_path / "a"), _run(ALONE, tmp_path / "b", "train", "student.options.dropout=0")
    assert _sha256(with_it) != _sha256(without)


def test_the_run_says_what_its_student_is(tmp_path: Path) -> None:
    about = read_about(_run(ALONE, tmp_path).weights("student"))
    assert (about["arch"], about["options"], about["num_classes"]) == (CAREFUL, {"width": 3}, 10)


def test_what_layers_draw_differs_from_rank_to_rank_and_step_to_step() -> None:
    drawn = []
    for seed, rank, iteration in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)):
        seed_layers(seed, World(torch.device("cpu"), rank, 2), iteration)
        drawn.append(tuple(torch.rand(4).tolist()))
    assert len(set(drawn[:4])) == 4
    assert drawn[4] == drawn[0]


def _weights_before_and_after(world: World, folder: Path, command: str) -> tuple[dict[str, Any], dict[str, Any]]:
    config = tiny_config(folder, *CHANGES)
    before = new_network(config, "student", ImageShape(1, 8, 8), 10).state_dict()
    directory = _run(world, folder, command)
    world.barrier()
    return before, read_weights(directory.weights("student"), "student")


@pytest.mark.parametrize("command", ["train", "distill"])
def test_parameters_without_a_part_in_the_answer_stay_as_they_are(
    two_ranks: Ranks, tmp_path: Path, command: str
) -> None:
    """With several workers as with one, and the others learn."""
    runs = [_weights_before_and_after(ALONE, tmp_path / "one", command)]
    runs += two_ranks.run(_weights_before_and_after, tmp_path / "two", command)
    for before, after in runs:
        assert torch.equal(before["auxiliary.weight"], after["auxiliary.weight"])
        assert not torch.equal(before["head.weight"], after["head.weight"])
    assert all(torch.equal(runs[1][1][name], runs[2][1][name]) for name in runs[1][1])


def _killed_and_continued(world: World, folder: Path) -> str:
    _killed(world, folder, "train", "student")
    return _sha256(_run(world, folder))


def test_two_workers_go_on_with_the_same_bits(two_ranks: Ranks, tmp_path: Path) -> None:
    expected = two_ranks.run(_run_sha256, tmp_path / "whole")
    assert two_ranks.run(_killed_and_continued, tmp_path / "killed") == expected


def _run_sha256(world: World, folder: Path) -> str:
    directory = _run(world, folder)
    world.barrier()
    return _sha256(directory)


SHAPE = ImageShape(1, 32, 32)


@pytest.mark.parametrize(
    "arch", ["timm:resnet10t", "torchvision:mobilenet_v3_small", "torchvision:regnet_y_400mf", CAREFUL]
)
def test_fast_paths_and_estimates(arch: str) -> None:
    """The folded teacher answers the same; memory and work are estimated."""
    config = load_config(None, [f"teacher.arch={arch}", f"student.arch={arch}", "loss.beta=0", "batch_size=4"])
    teacher = new_network(config, "teacher", SHAPE, 10).eval().requires_grad_(False)
    norms = [each for each in teacher.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2)
        folded, lost = fold_batch_norm(teacher)
        x = torch.randn(2, *SHAPE)
        torch.testing.assert_close(folded(x), teacher(x), rtol=1e-4, atol=1e-5)
    assert lost == len(norms), "each of them follows a convolution"
    student = new_network(config, "student", SHAPE, 10)
    assert iteration_gflop(config, torch.nn.Linear(100, 1), teacher, student, SHAPE) > 0
    memory = estimate_memory(config, SHAPE, 10)
    assert memory.teacher >= sum(4 * parameter.numel() for parameter in teacher.parameters())
    assert memory.activations > 0


def test_code_that_needs_numbers_is_outlined_with_numbers() -> None:
    config = load_config(None, ["student.arch=tests.support.user_networks:Literal"])
    networks = outlines(config, ["teacher", "student"], ImageShape(1, 8, 8), 10)
    assert {parameter.device.type for network in networks.values() for parameter in network.parameters()} == {"cpu"}
    config = load_config(None, [f"student.arch={CAREFUL}"])
    networks = outlines(config, ["teacher", "student"], ImageShape(1, 8, 8), 10)
    assert {parameter.device.type for network in networks.values() for parameter in network.parameters()} == {"meta"}


CONSTANTS = """
import torch
from torch import nn

MEAN = torch.tensor([0.5, 0.25])

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(2, num_classes)

    def forward(self, x):
        return self.fc(x.flatten(1)[:, :2] - MEAN)
"""


def test_a_module_that_is_first_imported_for_an_outline_keeps_its_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "networks_with_constants.py").write_text(CONSTANTS)
    monkeypatch.syspath_prepend(tmp_path)
    config, shape = load_config(None, ["student.arch=networks_with_constants:Net"]), ImageShape(1, 8, 8)
    outlines(config, ["student"], shape, 10)
    student = new_network(config, "student", shape, 10)
    assert torch.equal(student(torch.full((1, *shape), 0.5)), student.fc(torch.tensor([[0.0, 0.25]])))
