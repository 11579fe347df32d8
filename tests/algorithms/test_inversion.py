"""The terms of an inversion against closed forms, and its generator's steps against a plain loop."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zskt_dist.algorithms.inversion import (
    Batch,
    Inverter,
    Weights,
    balanced_classes,
    draw_batch,
    gap_cross_entropy,
    masked_kl,
    round_starts,
)
from zskt_dist.algorithms.statistics import StatisticsGap


def test_gap_cross_entropy_of_two_images_by_hand() -> None:
    """Of probabilities (3/4, 1/4) and (1/2, 1/2), of class 0; and of equal ones."""
    teacher, student = torch.tensor([[math.log(3.0), 0.0], [1.0, 2.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    factor = 1 - math.exp(-(0.25 + 0) / 2)
    apart = [-math.log(3**0.5 / (3**0.5 + 1)), math.log(2)]
    together = [-math.log(0.75), math.log(1 + math.exp(-2))]
    expected = factor * (sum(apart) / 2 + 0.2 * sum(together) / 2)
    assert gap_cross_entropy(student, teacher, torch.tensor([0, 1])).item() == pytest.approx(expected, rel=1e-5)
    assert gap_cross_entropy(teacher, teacher, torch.tensor([0, 1])).item() == 0


def test_gap_cross_entropy_seeks_a_sure_teacher_and_a_student_that_is_not() -> None:
    teacher, student = torch.zeros(1, 3, requires_grad=True), torch.full((1, 3), 0.2)
    student[0, 1] = 1.0
    student.requires_grad_()
    gap_cross_entropy(student, teacher, torch.tensor([1])).backward()
    assert teacher.grad is not None
    assert student.grad is not None
    assert teacher.grad[0, 1] < 0 < teacher.grad[0, 0], "a step against the gradient makes the teacher surer"
    assert student.grad[0, 1] > 0, "and the student less sure"


def test_masked_kl_counts_images_that_both_see_alike() -> None:
    teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 0.5]])
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    p, q = teacher.softmax(1), student.softmax(1)
    kl = (p * (p / q).log()).sum(1)
    classes = torch.zeros(3, dtype=torch.int64)
    assert masked_kl(student, teacher, classes).item() == pytest.approx(-(kl[0] + kl[2]).item() / 3, rel=1e-5)
    assert masked_kl(-teacher, teacher, classes).item() == 0, "nothing agreed is no gap, not a division by zero"


def _batch(z: Tensor, classes: Tensor, steps: int, parts: int = 1) -> Batch:
    """Without displacement."""
    return Batch(z, classes, np.zeros((steps, parts, 2), dtype=np.int64))


class _Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z).view(-1, 2, 2, 2)


def _network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    network[0].running_mean.normal_()
    return network.eval().requires_grad_(False)


def test_the_steps_are_those_of_plain_adam_on_the_weighted_sum() -> None:
    teacher, student = _network(1), _network(2)
    generator = _Generator()
    plain = copy.deepcopy(generator)
    adam = torch.optim.Adam(generator.parameters(), lr=0.01)
    weights = Weights(statistics=0.3, labels=0.7, gap=2.0)
    inverter = Inverter(generator, adam, {0: StatisticsGap(teacher)}, weights=weights)
    z, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    images, metrics = inverter.make(_batch(z, classes, 4), student)[0]

    adam = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(4):
        x = plain(z)
        pixels = x.transpose(0, 1).flatten(1)
        norm = teacher[0]
        unit = (norm.running_var + norm.eps).sqrt()
        of_means = (pixels.mean(1) - norm.running_mean) / unit
        of_deviations = (pixels.var(1, correction=0) + norm.eps).sqrt() / unit - 1
        distance = 100 * (of_means.square() + of_deviations.square()).mean().sqrt()
        logits, guess = teacher(x), student(x)
        label_loss = functional.cross_entropy(logits, classes)
        loss = 0.3 * distance + 0.7 * label_loss + 2 * gap_cross_entropy(guess, logits, classes)
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(images, x.detach())
    torch.testing.assert_close(generator.layer.weight, plain.layer.weight)
    assert metrics["synthesis_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["statistics_gap"].item() == pytest.approx(distance.item(), rel=1e-5)
    assert metrics["synthesis_agreement"].item() == pytest.approx((logits.argmax(1) == guess.argmax(1)).float().mean())


def test_a_generator_gets_nearer_to_classes_and_statistics() -> None:
    teacher = _network(1)
    generator = _Generator()
    adam = torch.optim.Adam(generator.parameters(), lr=0.03)
    inverter = Inverter(generator, adam, {0: StatisticsGap(teacher, 0.5)})
    z, classes = torch.randn(12, 3), torch.arange(12) % 3
    _, before = inverter.make(_batch(z, classes, 1))[0]
    for _ in range(30):
        _, after = inverter.make(_batch(z, classes, 10))[0]
    assert after["statistics_gap"] < before["statistics_gap"] / 2
    assert after["label_loss"] < before["label_loss"]
    assert "gap_loss" not in after, "there is no student"


@pytest.mark.parametrize("gap", ["cross_entropy", "masked_kl", "none"])
def test_workers_that_share_the_parts_do_what_one_does(gap: str) -> None:
    """Three parts of five images: two workers, one after the other, exchange their gradients by hand."""
    z, classes = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    student = _network(2)

    def new(own: range, add_up: Any = None) -> Inverter:
        torch.manual_seed(5)
        generator = _Generator()
        adam = torch.optim.SGD(generator.parameters(), lr=0.01)
        teachers = {part: StatisticsGap(_network(1), 0.9) for part in own}
        return Inverter(generator, adam, teachers, 3, gap=gap, add_up=add_up)

    gradients: list[list[Tensor]] = []

    def leave(own: Sequence[Tensor]) -> None:
        gradients.append([each.clone() for each in own])

    def add(own: Sequence[Tensor]) -> None:
        for each, other in zip(own, gradients[0], strict=True):
            each += other

    alone, first, second = new(range(3)), new(range(0, 3, 2), leave), new(range(1, 3, 2), add)
    batch = _batch(z, classes, 1, 3)
    expected = alone.make(batch, student)
    made = first.make(batch, student) | second.make(batch, student)
    assert [len(made[part].images) for part in range(3)] == [2, 2, 1]
    assert all(torch.equal(made[part].images, expected[part].images) for part in range(3))
    torch.testing.assert_close(second.generator.layer.weight, alone.generator.layer.weight)
    torch.testing.assert_close(second.label_weight, alone.label_weight)


def test_the_weight_of_the_labels_follows_their_loss() -> None:
    """A teacher of equal logits has a loss of ln 3 whatever it sees; one step of a batch each."""
    teacher = _network(1)
    teacher[-1].weight.zero_()
    teacher[-1].bias.zero_()
    z, classes = torch.randn(6, 3), torch.arange(6) % 3
    for target, expected in ((math.log(3) - 0.5, math.exp(0.25)), (math.log(3) + 0.5, math.exp(-0.25)), (1e-9, None)):
        generator = _Generator()
        adam = torch.optim.Adam(generator.parameters())
        weights = Weights(labels=0.3, label_target=target)
        inverter = Inverter(generator, adam, {0: StatisticsGap(teacher)}, weights=weights)
        inverter.make(_batch(z, classes, 1))
        if expected:
            assert inverter.label_weight.item() == pytest.approx(0.3 * expected, rel=1e-4)
        else:
            for _ in range(40):
                inverter.make(_batch(z, classes, 1))
            assert inverter.label_weight.item() == pytest.approx(12), "40 times the first weight at most"


def test_networks_see_a_part_displaced_and_the_images_stay() -> None:
    seen: list[Tensor] = []

    class Teacher(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return x.flatten(1)[:, :3]

    generator = _Generator()
    inverter = Inverter(generator, torch.optim.SGD(generator.parameters(), lr=0.0), {0: StatisticsGap(Teacher())})
    batch = Batch(torch.randn(4, 3), torch.arange(4) % 3, np.array([[[0, 1]], [[1, 0]]]))
    images = inverter.make(batch)[0].images
    torch.testing.assert_close(images, generator(batch.z))
    assert torch.equal(seen[0], images.flip(3)), "of two columns, one to the right is mirrored"
    assert torch.equal(seen[1], images.flip(2))


@pytest.mark.parametrize(("kept", "steps"), [(1, [5]), (2, [2, 5]), (3, [1, 3, 5]), (9, [1, 2, 3, 4, 5])])
def test_images_of_steps_on_the_way_are_kept_too(kept: int, steps: list[int]) -> None:
    """What two parts have after each of five steps, taken one at a time, is what is kept of them."""
    teacher, z, classes = _network(1), torch.randn(5, 3), torch.arange(5) % 3
    generators = [_Generator()]
    generators.append(copy.deepcopy(generators[0]))
    inverters = [
        Inverter(
            generator,
            torch.optim.Adam(generator.parameters(), lr=0.01),
            {part: StatisticsGap(teacher) for part in range(2)},
            2,
            kept=kept,
        )
        for generator in generators
    ]
    made = inverters[0].make(_batch(z, classes, 5, parts=2))
    single = []
    for _ in range(5):
        inverters[1].label_weight = torch.tensor(0.5)  # it follows the loss from batch to batch, not from step to step
        single.append(inverters[1].make(_batch(z, classes, 1, parts=2)))
    for part in range(2):
        expected = torch.cat([single[step - 1][part].images for step in steps])
        torch.testing.assert_close(made[part].images, expected)


def test_what_is_drawn_has_the_sizes_and_stays_in_bounds() -> None:
    batch = draw_batch(np.random.default_rng(0), 5, 3, images=7, steps=50, parts=2, jitter=2)
    assert batch.z.shape == (7, 5)
    assert sorted(np.bincount(batch.classes.numpy())) == [2, 2, 3]
    assert batch.shifts.shape == (50, 2, 2)
    assert set(np.unique(batch.shifts)) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize(("count", "classes"), [(20, 10), (23, 10), (3, 10)])
def test_classes_are_balanced_and_shuffled(count: int, classes: int) -> None:
    found = balanced_classes(np.random.default_rng(0), count, classes)
    times = np.bincount(found, minlength=classes)
    assert len(found) == count
    assert times.max() - times.min() <= 1
    assert not np.array_equal(found, np.sort(found)) or count == 3


def test_each_round_has_one_more_share_of_the_student_steps() -> None:
    assert round_starts(60, 4) == [0, 6, 18, 36]
    assert round_starts(60, 4, 0.5) == [0, 3, 9, 18]
    assert round_starts(2, 3) == [0, 0, 1]
    assert round_starts(5, 1) == [0]
