"""Estimates against values of textbooks, plain sorting and counting by hand."""

import math

import pytest
import torch
from scipy.stats import binomtest

from zskt_dist.algorithms.estimates import BINS, compare, describe, together, wilson_interval
from zskt_dist.algorithms.scores import bin_of


def _logits(*probabilities: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def _filled(counts: list[int]) -> dict[int, int]:
    """The bins that have images."""
    return {place: count for place, count in enumerate(counts) if count}


TEACHER = _logits((0.81, 0.1, 0.09), (0.2, 0.51, 0.29), (0.52, 0.24, 0.24), (0.1, 0.88, 0.02))
STUDENT = _logits((0.62, 0.28, 0.1), (0.42, 0.3, 0.28), (0.46, 0.44, 0.1), (0.05, 0.93, 0.02))


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (81, 263), (1, 2), (255, 256)])
def test_the_interval_is_wilsons(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_newcombes_example() -> None:
    low, high = wilson_interval(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_every_number_counted_by_hand() -> None:
    answer = describe(compare(STUDENT, TEACHER), 3)
    assert (answer["images"], answer["agreement"]) == (4, 0.75), "the second image alone is seen differently"
    # Teacher predicts 0, 1, 0, 1 and the student 0, 0, 0, 1: (1/2)(3/4) + (1/2)(1/4).
    assert answer["chance_agreement"] == pytest.approx(0.5)
    assert answer["teacher"]["classes"] == 2
    assert answer["teacher"]["class_entropy"] == pytest.approx(math.log(2))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert answer["student"]["class_entropy"] == pytest.approx(entropy)
    assert answer["teacher"]["confidence_mean"] == pytest.approx((0.81 + 0.51 + 0.52 + 0.88) / 4)
    assert BINS == 20
    # Bins of 0.05: 0.51 and 0.52 are in the eleventh, 0.81 in the 17th, 0.88 in the 18th.
    assert _filled(answer["teacher"]["confidence_counts"]) == {10: 2, 16: 1, 17: 1}
    # 0.42 in the ninth, 0.46 in the tenth, 0.62 in the 13th, 0.93 in the 19th.
    assert _filled(answer["student"]["confidence_counts"]) == {8: 1, 9: 1, 12: 1, 18: 1}


def test_an_edge_belongs_to_the_bin_below() -> None:
    assert bin_of(torch.tensor([0.0, 0.25, 0.26, 0.5, 1.0]), 20).tolist() == [0, 4, 5, 9, 19]


def test_quantiles_are_those_of_a_plain_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(101, 4, generator=generator) for _ in range(2))
    answer = describe(compare(student, teacher), 4)
    divergences = []
    for q, p in zip(student.double().softmax(1).tolist(), teacher.double().softmax(1).tolist(), strict=True):
        divergences.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    divergences.sort()  # of 101 values the k-th per cent is the one with k below it
    assert answer["kl_quantiles"] == {str(k): pytest.approx(divergences[k]) for k in (5, 25, 50, 75, 95)}
    assert answer["kl_mean"] == pytest.approx(sum(divergences) / 101)


def test_a_copy_of_the_teacher_agrees_and_diverges_nowhere() -> None:
    answer = describe(compare(TEACHER.float(), TEACHER.float()), 3)
    assert answer["agreement"] == answer["agreement_high"] == 1
    assert answer["agreement_low"] == pytest.approx(4 / (4 + 1.959964**2)), "n / (n + z^2)"
    assert set(answer["kl_quantiles"].values()) == {0.0}
    assert answer["teacher"] == answer["student"]


def test_a_constant_student_agrees_as_often_as_chance() -> None:
    """Uniform over three classes, with a hair more for the second: KL is log 3 less the teacher's entropy."""
    constant = torch.tensor([[0.0, 1e-9, 0.0]], dtype=torch.float64).expand(4, 3)
    answer = describe(compare(constant, TEACHER), 3)
    assert answer["agreement"] == answer["chance_agreement"] == 0.5
    assert (answer["student"]["classes"], answer["student"]["class_entropy"]) == (1, 0)
    assert answer["student"]["confidence_counts"][6] == 4, "1/3 is in (0.3, 0.35]"
    entropies = sorted(-sum(p * math.log(p) for p in row) for row in TEACHER.exp().tolist())
    assert answer["kl_quantiles"]["50"] == pytest.approx(math.log(3) - (entropies[1] + entropies[2]) / 2, abs=1e-8)


def test_parts_add_up_to_the_whole() -> None:
    parts = [compare(STUDENT[:1], TEACHER[:1]), compare(STUDENT[1:], TEACHER[1:])]
    assert describe(together(parts), 3) == describe(compare(STUDENT, TEACHER), 3)
