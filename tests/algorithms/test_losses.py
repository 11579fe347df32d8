"""Losses against arithmetic written out by hand."""

import math

import pytest
import torch

from zskt_dist.algorithms.losses import attention_gap, attention_map, belief_gap

TEACHER = [[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]]
STUDENT = [[0.3, 0.1, -0.7], [1.0, 1.5, 0.2]]


def _softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    exps = [math.exp(logit / temperature) for logit in logits]
    return [e / sum(exps) for e in exps]


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _gap(name: str, temperature: float) -> list[float]:
    """Per image, from the definitions of section 3.2."""
    gaps = []
    for student, teacher in zip(STUDENT, TEACHER, strict=True):
        s, t = _softmax(student, temperature), _softmax(teacher, temperature)
        mixture = [(a + b) / 2 for a, b in zip(s, t, strict=True)]
        gaps.append(
            {
                "forward_kl": _kl(t, s),
                "reverse_kl": _kl(s, t),
                "jensen_shannon": (_kl(t, mixture) + _kl(s, mixture)) / 2,
            }[name]
        )
    return gaps


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_belief_gaps(name: str, temperature: float) -> None:
    student, teacher = torch.tensor(STUDENT, dtype=torch.float64), torch.tensor(TEACHER, dtype=torch.float64)
    expected = sum(_gap(name, temperature)) / 2
    batchmean = belief_gap(name, temperature=temperature, reduction="batchmean")(student, teacher)  # type: ignore[arg-type]
    mean = belief_gap(name, temperature=temperature)(student, teacher)  # type: ignore[arg-type]
    assert batchmean.item() == pytest.approx(expected, rel=1e-9)
    assert mean.item() == pytest.approx(expected / 3, rel=1e-9), "the authors' mean is also over the three classes"


def test_the_default_is_kl_of_the_teacher_from_the_student() -> None:
    """A student that rules out what the teacher believes is punished without bound; the other way round it is not."""
    teacher, sure = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -50.0]])
    assert belief_gap()(sure, teacher) > 10
    assert belief_gap()(teacher, sure) < 1


def test_attention_map_is_the_normalised_mean_square_over_channels() -> None:
    activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # one image, two channels, 1x2 pixels
    squares = [(1 + 9) / 2, (4 + 16) / 2]
    norm = math.hypot(*squares)
    assert attention_map(activation)[0].tolist() == pytest.approx([square / norm for square in squares])


@pytest.mark.parametrize(("form", "expected"), [("squared_mean", 1.0), ("l2", math.sqrt(2))])
def test_attention_gap(form: str, expected: float) -> None:
    """Maps (1, 0) and (0, 1): differences 1 and -1; mean square 1, 2-norm the root of 2; layers add."""
    student = torch.tensor([[[[5.0, 0.0]]]])
    teacher = attention_map(torch.tensor([[[[0.0, 7.0]]]]))
    one = attention_gap([student], [teacher], form)  # type: ignore[arg-type]
    two = attention_gap([student, student], [teacher, teacher], form)  # type: ignore[arg-type]
    assert one.item() == pytest.approx(expected)
    assert two.item() == pytest.approx(2 * expected)
