"""Steps on given images and logits, against Adam and KL written out."""

import copy

import pytest
import torch
from torch import Tensor, nn

from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.matching import Matching
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.engine import DDPEngine
from zskt_dist.models import TappedNetwork

RATES = (0.1, 0.075, 0.025)
CLIP = 0.05


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def _batch(number: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(number)
    return torch.randn(7, 1, 2, 3, generator=random), 3 * torch.randn(7, 3, generator=random)


def _trained(network: nn.Module, micro_batch: int | None) -> Metrics:
    optimizer = torch.optim.Adam(network.parameters(), lr=RATES[0])
    engine = DDPEngine(TappedNetwork(network), optimizer, lambda i: RATES[min(i, 2)] / RATES[0], clip_norm=CLIP)
    matching = Matching(engine, gap=belief_gap(temperature=2.0), micro_batch=micro_batch)
    for number in range(len(RATES)):
        metrics = matching.step(*_batch(number))
    return metrics


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("micro_batch", [None, 7, 3, 1])
def test_steps_are_those_of_plain_adam(micro_batch: int | None) -> None:
    network = _network()
    plain = copy.deepcopy(network)
    metrics = _trained(network, micro_batch)
    first = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    second = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    for number, rate in enumerate(RATES):
        x, target = _batch(number)
        logits = plain(x)
        p = (target / 2).softmax(1)
        kl = (p * (p.log() - (logits / 2).log_softmax(1))).sum() / (7 * 3)
        gradients = torch.autograd.grad(kl, list(plain.parameters()))
        norm = sum(gradient.square().sum() for gradient in gradients) ** 0.5
        assert norm > CLIP, "clipping is part of what is tested"
        with torch.no_grad():
            for parameter, gradient, m, v in zip(plain.parameters(), gradients, first, second, strict=True):
                clipped = gradient * CLIP / (norm + 1e-6)  # as torch clips
                m.mul_(0.9).add_(0.1 * clipped)
                v.mul_(0.999).add_(0.001 * clipped.square())
                m_hat, v_hat = m / (1 - 0.9 ** (number + 1)), v / (1 - 0.999 ** (number + 1))
                parameter.sub_(rate * m_hat / (v_hat.sqrt() + 1e-8))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)
    torch.testing.assert_close(metrics["kl"], kl.detach(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(metrics["student_gradient_norm"], norm, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(metrics["teacher_confidence"], target.softmax(1).max(1).values.mean())
    guessed = torch.bincount(logits.argmax(1), minlength=3) / 7
    torch.testing.assert_close(metrics["student_classes"], guessed, rtol=1e-6, atol=1e-9)
    assert not any(value.requires_grad for value in metrics.values())


def test_a_student_learns_what_it_is_told() -> None:
    network = _network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    matching = Matching(DDPEngine(TappedNetwork(network), optimizer, lambda i: 1.0), gap=belief_gap())
    x, target = _batch(0)
    before = matching.step(x, target)["kl"]
    for _ in range(200):
        after = matching.step(x, target)["kl"]
    assert after < before / 100
    assert torch.equal(network(x).argmax(1), target.argmax(1))
