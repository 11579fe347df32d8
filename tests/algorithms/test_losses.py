"""Against hand arithmetic in plain Python, with `math` alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from zskt_dist.algorithms.losses import at_smaller_size, attention_gap, attention_map, belief_gap, kl_divergence

pytestmark = pytest.mark.usefixtures("float64")

STUDENT = [[0.5, -1.0, 2.0], [3.0, 0.0, -0.5]]
TEACHER = [[1.5, 0.2, -0.7], [2.0, 2.5, 0.1]]

Rows = list[list[float]]


def _softmax(row: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _expected(divergence: str, student: Rows, teacher: Rows, temperature: float, reduction: str) -> float:
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        s, t = _softmax(student_row, temperature), _softmax(teacher_row, temperature)
        mixture = [(a + b) / 2 for a, b in zip(s, t, strict=True)]
        total += {
            "forward_kl": _kl(t, s),
            "reverse_kl": _kl(s, t),
            "jensen_shannon": _kl(t, mixture) / 2 + _kl(s, mixture) / 2,
        }[divergence]
    return total / len(student) / (len(student[0]) if reduction == "mean" else 1)


DIVERGENCES = ["forward_kl", "reverse_kl", "jensen_shannon"]


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_closed_form(divergence: str, reduction: str, temperature: float) -> None:
    gap = belief_gap(divergence, temperature=temperature, reduction=reduction)
    expected = _expected(divergence, STUDENT, TEACHER, temperature, reduction)
    assert gap(torch.tensor(STUDENT), torch.tensor(TEACHER)).item() == pytest.approx(expected, rel=1e-12)


def test_two_classes_by_head() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): KL(T||S) = 3/4 ln(3/2) + 1/4 ln(1/2); divided by C = 2."""
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    reverse = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert belief_gap()(student, teacher).item() == pytest.approx(forward / 2, rel=1e-12)
    assert belief_gap(reduction="batchmean")(student, teacher).item() == pytest.approx(forward, rel=1e-12)
    assert belief_gap("reverse_kl", reduction="batchmean")(student, teacher).item() == pytest.approx(reverse, rel=1e-12)


def test_forward_kl_is_of_the_teacher_from_the_student() -> None:
    """Where the student rules out what the teacher believes, forward KL is large; the other way round it is not."""
    sure, torn = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    forward = belief_gap("forward_kl", reduction="batchmean")
    assert forward(sure, torn).item() == pytest.approx(10 - math.log(2), abs=1e-6)  # (first is the student)
    assert forward(torn, sure).item() == pytest.approx(math.log(2), abs=1e-6)


def test_jensen_shannon_of_opposites_is_ln_2() -> None:
    gap = belief_gap("jensen_shannon", reduction="batchmean")
    a, b = torch.tensor([[800.0, 0.0]]), torch.tensor([[0.0, 800.0]])
    assert gap(a, b).item() == pytest.approx(math.log(2), rel=1e-12)
    assert gap(a, a).item() == 0


@pytest.mark.parametrize("batch", [1, 5])
def test_forward_kl_is_torchs(batch: int) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(batch, 7), 3 * torch.randn(batch, 7)
    expected = functional.kl_div(
        functional.log_softmax(student, 1), functional.softmax(teacher, 1), reduction="batchmean"
    )
    torch.testing.assert_close(belief_gap(reduction="batchmean")(student, teacher), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(belief_gap(reduction="mean")(student, teacher), expected / 7, rtol=1e-12, atol=0)


def test_kl_of_log_probabilities() -> None:
    p, q = [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]
    log_p, log_q = (torch.tensor([values]).log() for values in (p, q))
    assert kl_divergence(log_p, log_q, "batchmean").item() == pytest.approx(_kl(p, q), rel=1e-12)
    assert kl_divergence(log_p, log_q).item() == pytest.approx(_kl(p, q) / 3, rel=1e-12)


LOGITS = st.lists(st.floats(-30, 30), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(student=LOGITS, teacher=LOGITS, shift=st.floats(-50, 50), divergence=st.sampled_from(DIVERGENCES))
def test_gaps_are_divergences(student: list[float], teacher: list[float], shift: float, divergence: str) -> None:
    gap = belief_gap(divergence, reduction="batchmean")
    s, t = torch.tensor([student]), torch.tensor([teacher])
    value = gap(s, t).item()
    assert value >= -1e-12
    assert gap(s, s + shift).item() == pytest.approx(0, abs=1e-12)  # equal beliefs; a shift changes none
    assert gap(s + shift, t).item() == pytest.approx(value, rel=1e-9, abs=1e-11)
    if divergence == "jensen_shannon":
        assert value <= math.log(2) + 1e-12
        assert gap(t, s).item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    if value > 1e-6:  # certainly different beliefs
        assert max(abs(a - b) for a, b in zip(_softmax(student, 1), _softmax(teacher, 1), strict=True)) > 1e-8


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["usual", "saturated"])
def test_values_and_gradients_are_finite(divergence: str, scale: float) -> None:
    torch.manual_seed(0)
    student = (scale * torch.randn(4, 6)).requires_grad_()
    teacher = (scale * torch.randn(4, 6)).requires_grad_()
    loss = belief_gap(divergence)(student, teacher)
    loss.backward()
    for values in (loss.detach(), student.grad, teacher.grad):
        assert values is not None
        assert values.isfinite().all()


def test_gradient_of_forward_kl() -> None:
    """By hand: the derivative by the student's logits is (p_student - p_teacher) / (T B C)."""
    temperature = 2.0
    student = torch.tensor(STUDENT, requires_grad=True)
    belief_gap(temperature=temperature)(student, torch.tensor(TEACHER)).backward()
    assert student.grad is not None
    for row, (s, t) in enumerate(zip(STUDENT, TEACHER, strict=True)):
        for column, (p, q) in enumerate(zip(_softmax(s, temperature), _softmax(t, temperature), strict=True)):
            assert student.grad[row, column].item() == pytest.approx((p - q) / (temperature * 2 * 3), rel=1e-10)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradient_reaches_both_networks(divergence: str) -> None:
    """The generator learns through the teacher too."""
    student, teacher = torch.tensor(STUDENT, requires_grad=True), torch.tensor(TEACHER, requires_grad=True)
    gap = belief_gap(divergence, temperature=1.5)
    assert torch.autograd.gradcheck(gap, (student, teacher))
    gap(student, teacher).backward()
    for logits in (student, teacher):
        assert logits.grad is not None
        assert logits.grad.abs().max() > 1e-2


# One image, two channels of 2x1 pixels each: squares (1, 16) and (4, 0), means (2.5, 8), norm sqrt(70.25).
ACTIVATION = [[[[1.0], [-4.0]], [[2.0], [0.0]]]]
# The other network has one channel: squares (9, 16), norm sqrt(337).
OTHER = [[[[3.0], [4.0]]]]


def test_attention_map() -> None:
    expected = [2.5 / math.sqrt(70.25), 8 / math.sqrt(70.25)]
    (image,) = attention_map(torch.tensor(ACTIVATION))
    assert image.shape == (2, 1)
    assert image.flatten().tolist() == pytest.approx(expected, rel=1e-12)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(scale=st.floats(1e-2, 1e2), seed=st.integers(0, 99))
def test_attention_map_is_a_direction(scale: float, seed: int) -> None:
    """Of unit length, never negative, and the same for activations of another size or sign."""
    a = torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    maps = attention_map(a)
    assert maps.shape == (3, 2, 5)
    assert maps.min() >= 0
    torch.testing.assert_close(maps.flatten(1).norm(dim=1), torch.ones(3, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(attention_map(-scale * a), maps, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", ["squared_mean", "l2"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_attention_gap(form: str, layers: int) -> None:
    a, b = [2.5 / math.sqrt(70.25), 8 / math.sqrt(70.25)], [9 / math.sqrt(337), 16 / math.sqrt(337)]
    squares = [(x - y) ** 2 for x, y in zip(a, b, strict=True)]
    one_image = sum(squares) / 2 if form == "squared_mean" else math.sqrt(sum(squares))
    # Two images, of which the second agrees with its teacher: half of the batch contributes.
    student = torch.tensor(ACTIVATION + ACTIVATION)
    teacher = torch.cat([attention_map(torch.tensor(OTHER)), attention_map(torch.tensor(ACTIVATION))])
    value = attention_gap([student] * layers, [teacher] * layers, form).item()
    assert value == pytest.approx(layers * one_image / 2, rel=1e-12)


def test_attention_gap_is_the_squared_mean_by_default() -> None:
    student, teacher = [torch.tensor(ACTIVATION)], [attention_map(torch.tensor(OTHER))]
    assert attention_gap(student, teacher) == attention_gap(student, teacher, "squared_mean")
    assert attention_gap(student, teacher) != attention_gap(student, teacher, "l2")


@pytest.mark.parametrize("form", ["squared_mean", "l2"])
def test_attention_gradient(form: str) -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 2, 2, requires_grad=True)
    teacher = attention_map(torch.randn(2, 5, 2, 2))
    assert torch.autograd.gradcheck(lambda a: attention_gap([a], [teacher], form), (student,))
    attention_gap([student], [teacher], form).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 1e-3


@pytest.mark.parametrize("form", ["squared_mean", "l2"])
@pytest.mark.parametrize("activation", [ACTIVATION, [[[[0.0], [0.0]]]]], ids=["equal maps", "dead layer"])
def test_attention_gradient_where_it_could_be_undefined(form: str, activation: list[list[Rows]]) -> None:
    student = torch.tensor(activation, requires_grad=True)
    attention_gap([student], [attention_map(torch.tensor(activation))], form).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_attention_needs_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        attention_gap([torch.tensor(ACTIVATION)] * 2, [attention_map(torch.tensor(OTHER))])


# Activations of one channel; their squares, averaged over quarters, are (1, 0, 8, 4), of norm 9.
FINE = [[[[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [4.0, 4.0, 2.0, -2.0], [0.0, 0.0, 2.0, 2.0]]]]


@pytest.mark.parametrize("form", ["squared_mean", "l2"])
@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_larger_maps_are_averaged_down_to_the_smaller(form: str, larger: str) -> None:
    """By hand: averaged down (1, 0, 8, 4) / 9; the other one sees the upper left only, (1, 0, 0, 0)."""
    coarse = [[[[5.0, 0.0], [0.0, 0.0]]]]
    student, teacher = (FINE, coarse) if larger == "student" else (coarse, FINE)
    value = attention_gap([torch.tensor(student)], [attention_map(torch.tensor(teacher))], form).item()
    square = (64 + 0 + 64 + 16) / 81
    assert value == pytest.approx(square / 4 if form == "squared_mean" else math.sqrt(square), rel=1e-9)


def test_sizes_that_do_not_divide() -> None:
    """Each of two pixels covers two of three: squares (1, 4, 16) become (2.5, 10), the direction (1, 4) / sqrt(17)."""
    student, teacher = torch.tensor([[[[1.0, 2.0, 4.0]]]]), attention_map(torch.tensor([[[[2.0, 4.0]]]]))
    assert attention_gap([student], [teacher]).item() == pytest.approx(0, abs=1e-14)  # (4, 16) / norm: the same
    mine, theirs = at_smaller_size(attention_map(student), teacher)
    for maps in (mine, theirs):
        assert maps.flatten().tolist() == pytest.approx([1 / math.sqrt(17), 4 / math.sqrt(17)], rel=1e-12)


def test_a_side_that_is_longer_and_one_that_is_shorter() -> None:
    """2x1 and 1x2 pixels are compared as one, where all maps are alike."""
    student, teacher = torch.tensor([[[[3.0], [4.0]]]]), attention_map(torch.tensor([[[[1.0, 9.0]]]]))
    assert attention_gap([student], [teacher]).item() == pytest.approx(0, abs=1e-14)


def test_gradient_through_smaller_maps() -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 5, 4, requires_grad=True)
    teacher = attention_map(torch.randn(2, 5, 2, 3))
    assert torch.autograd.gradcheck(lambda a: attention_gap([a], [teacher]), (student,))
    attention_gap([student], [teacher]).backward()
    assert student.grad is not None
    assert (student.grad != 0).all()  # no pixel is passed over
