"""Appendix 1, term by term, against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from zskt_dist.algorithms.generator_terms import GeneratorTerms, entropy, gaussian_blur, mean_cosine
from zskt_dist.models import Beliefs


def test_entropy_of_a_sure_and_of_a_clueless_network() -> None:
    assert entropy(torch.tensor([[100.0, 0.0, 0.0, 0.0]])).item() == pytest.approx(0, abs=1e-6)
    assert entropy(torch.zeros(3, 4)).item() == pytest.approx(math.log(4))
    half = torch.log(torch.tensor([[0.5, 0.5, 1e-30, 1e-30]]))
    assert entropy(torch.cat([half, torch.zeros(1, 4)])).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_mean_cosine_is_that_of_all_pairs() -> None:
    assert mean_cosine(torch.eye(5)).item() == pytest.approx(0, abs=1e-7)
    assert mean_cosine(torch.tensor([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]])).item() == pytest.approx(1)
    assert mean_cosine(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])).item() == pytest.approx(-1)
    torch.manual_seed(0)
    features = torch.randn(6, 4)
    pairs = [torch.cosine_similarity(a, b, dim=0) for i, a in enumerate(features) for b in features[i + 1 :]]
    assert mean_cosine(features).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)


def test_blur_keeps_flat_images_and_spreads_a_point_as_a_gaussian() -> None:
    flat = torch.full((1, 2, 9, 7), 3.0)
    torch.testing.assert_close(gaussian_blur(flat, 1.3), flat)
    point = torch.zeros(1, 1, 15, 15)
    point[0, 0, 7, 7] = 1
    blurred = gaussian_blur(point, 1.0)[0, 0]
    assert blurred.sum().item() == pytest.approx(1, abs=1e-6)
    assert (blurred[7, 8] / blurred[7, 7]).item() == pytest.approx(math.exp(-0.5), rel=1e-5)
    assert (blurred[5, 7] / blurred[7, 7]).item() == pytest.approx(math.exp(-2), rel=1e-5)


def _teacher(x: Tensor) -> Beliefs:
    return Beliefs(x.flatten(1)[:, :3], (), x.flatten(1))


def test_the_sum_is_weighed_and_only_active_terms_are_told() -> None:
    torch.manual_seed(0)
    x, noise = torch.randn(4, 1, 2, 3, requires_grad=True), torch.randn(4, 1, 2, 3)
    belief, guess = _teacher(x), Beliefs(torch.randn(4, 3), ())
    settings = {"teacher_entropy": 2.0, "student_entropy": -1.0, "consistency": 0.5, "diversity": 3.0}
    terms = GeneratorTerms(_teacher, **settings, strength=0.1)
    total, told = terms(x, belief, guess, noise)
    p = torch.softmax(belief.logits, 1)
    again = torch.softmax(_teacher(x + 0.1 * noise).logits, 1)
    expected = {
        "teacher_entropy": -(p * p.log()).sum(1).mean(),
        "student_entropy": entropy(guess.logits),
        "consistency": (p * (p / again).log()).sum(1).mean(),
        "diversity": mean_cosine(x.flatten(1)),
    }
    assert told.keys() == {f"generator_{name}" for name in expected}
    for name, value in expected.items():
        torch.testing.assert_close(told[f"generator_{name}"], value.detach())
    torch.testing.assert_close(total, sum(settings[name] * value for name, value in expected.items()))
    assert torch.autograd.grad(total, x)[0].abs().sum() > 0
    assert terms.needs_image_noise
    alone, told = GeneratorTerms(_teacher, teacher_entropy=1.0)(x, belief, guess, None)
    assert list(told) == ["generator_teacher_entropy"]
    torch.testing.assert_close(alone, expected["teacher_entropy"])
