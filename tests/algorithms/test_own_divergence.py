"""A divergence of the user's own: what it is taken for, and what is refused before anything is trained."""

import math
from typing import Any

import pytest
import torch

from tests.support import user_divergences
from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.own_divergence import check_own_divergence, own_gap
from zskt_dist.models import NetworkError

CPU = torch.device("cpu")
STUDENT = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
TEACHER = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])


@pytest.mark.parametrize("name", ["forward_kl", "mean_kl"])
def test_values_of_images_are_averaged(name: str) -> None:
    """KL((3/4, 1/4) || (1/2, 1/2)) = log 2 - H(1/4), and nothing for the second image."""
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    gap = own_gap(getattr(user_divergences, name))
    assert float(gap(STUDENT, TEACHER)) == pytest.approx((math.log(2) - entropy) / 2)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_one_of_ours_written_anew_is_the_same(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 7)
    ours = belief_gap("forward_kl", temperature=temperature, reduction="batchmean")
    own = own_gap(user_divergences.forward_kl, temperature)
    torch.testing.assert_close(own(student, teacher), ours(student, teacher))


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("name", ["forward_kl", "mean_kl", "squared"])
def test_what_can_be_trained_with(name: str, classes: int) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    check_own_divergence(getattr(user_divergences, name), classes, CPU)
    assert torch.equal(torch.get_rng_state(), state)


BAD: dict[str, str] = {
    "total": r"is no mean over images: .* number of workers; return a value for each image, \[n\]",
    "of_the_batch": "is no mean over images",
    "number": "returns float; return a tensor, with a value for each image",
    "detached": "returns a value without a gradient to the student's logits",
    "of_the_teacher_alone": "has no gradient to the student's logits, or one of zeros",
    "of_each_class": r"returns a tensor \[6, 10\] for logits \[6, 10\]; return a value for each image, \[6\], or",
    "column": r"returns a tensor \[6, 1\] for logits",
    "underflowing": "has a value that is not finite for logits with a deviation of 10; log_softmax",
    "of_seven_classes": r"fails on the logits \[6, 10\] of student and teacher: RuntimeError: .*divergences.py, line",
    "labels": r"returns torch\.int64; return floating-point numbers",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    with pytest.raises(NetworkError, match=BAD[name]) as raised:
        check_own_divergence(getattr(user_divergences, name), 10, CPU)
    assert "\n" not in str(raised.value)


def test_a_divergence_of_other_arguments_is_refused() -> None:
    def one(student: Any) -> Any:
        return student.sum(dim=1)

    with pytest.raises(NetworkError, match=r"fails on the logits .* takes 1 positional argument but 2 were given"):
        check_own_divergence(one, 10, CPU)  # type: ignore[arg-type]
