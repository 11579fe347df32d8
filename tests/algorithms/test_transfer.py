"""Algorithm 1 against a plain loop without engines, written from the paper and the facts on the authors' code."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.transfer import ZeroShotTransfer
from zskt_dist.engine import DDPEngine
from zskt_dist.models import Generator, TappedNetwork, WideResNet

N_G, N_S, N, BATCH, BETA = 2, 3, 3, 4, 7.0
LAYERS = ("group1", "group3")


def _networks() -> tuple[nn.Module, nn.Module, nn.Module]:
    torch.manual_seed(3)
    teacher = WideResNet(10, 2, in_channels=1, num_classes=5).double().eval().requires_grad_(False)
    student = WideResNet(10, 1, in_channels=1, num_classes=5).double()
    return teacher, student, Generator(6, (1, 8, 8), (8, 4)).double()


def _noise(iteration: int, draw: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * iteration + draw)
    return torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)


def _cosine(iteration: int) -> float:
    return (1 + math.cos(math.pi * iteration / N)) / 2


def _engines(student: nn.Module, generator: nn.Module) -> tuple[DDPEngine, DDPEngine]:
    tapped = TappedNetwork(student, LAYERS)
    return (
        DDPEngine(generator, torch.optim.Adam(generator.parameters(), lr=1e-3), _cosine, clip_norm=0.5),
        DDPEngine(tapped, torch.optim.Adam(tapped.parameters(), lr=2e-3), _cosine, clip_norm=0.5),
    )


def _transfer(teacher: nn.Module, student: nn.Module, generator: nn.Module, **settings: Any) -> ZeroShotTransfer:
    generator_engine, student_engine = _engines(student, generator)
    chosen = {"gap": belief_gap(), "beta": BETA, "generator_steps": N_G, "student_steps": N_S} | settings
    return ZeroShotTransfer(generator_engine, student_engine, TappedNetwork(teacher, LAYERS), **chosen)


def _forward(network: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and the maps of groups 1 and 3, by walking through the network."""
    maps = []
    out = network.conv1(x)
    for name in ("group1", "group2", "group3"):
        out = getattr(network, name)(out)
        if name in LAYERS:
            squared = (out**2).mean(1).reshape(len(x), -1)
            maps.append(squared / squared.norm(dim=1, keepdim=True))
    out = functional.relu(network.bn(out)).mean((2, 3))
    return network.fc(out), maps


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = torch.softmax(teacher, 1), torch.softmax(student, 1)
    return (p * (p.log() - q.log())).mean()


def _plain(teacher: nn.Module, student: nn.Module, generator: nn.Module, mode: str) -> None:
    """The authors' order: images anew at every student step, gradients through everything."""
    adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3)
    adam_s = torch.optim.Adam(student.parameters(), lr=2e-3)
    for iteration in range(N):
        for optimizer, rate in ((adam_g, 1e-3), (adam_s, 2e-3)):
            optimizer.param_groups[0]["lr"] = rate * _cosine(iteration)
        z = _noise(iteration, 0)
        for _ in range(N_G):
            before = generator(z)
            loss = -_kl(_forward(student, before)[0], _forward(teacher, before)[0])
            adam_g.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(generator.parameters(), 0.5)
            adam_g.step()
        for step in range(N_S):
            x = {"pre_update": before, "post_update": generator(z), "fresh": generator(_noise(iteration, step + 1))}[
                mode
            ]
            logits, maps = _forward(student, x.detach())
            target, target_maps = _forward(teacher, x.detach())
            attention = sum(((a - b) ** 2).mean() for a, b in zip(maps, target_maps, strict=True))
            adam_s.zero_grad()
            (_kl(logits, target) + BETA * attention).backward()
            nn.utils.clip_grad_norm_(student.parameters(), 0.5)
            adam_s.step()


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
def test_algorithm_1_equals_the_plain_loop(mode: str) -> None:
    teacher, student, generator = _networks()
    expected_student, expected_generator = copy.deepcopy(student), copy.deepcopy(generator)
    _plain(teacher, expected_student, expected_generator, mode)
    frozen = copy.deepcopy(teacher.state_dict())
    transfer = _transfer(teacher, student, generator, pseudo_batch=mode)
    for iteration in range(N):
        transfer.step(lambda draw, i=iteration: _noise(i, draw))
    for trained, expected in ((student, expected_student), (generator, expected_generator)):
        for (name, value), other in zip(trained.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-10, msg=name)
    assert all(torch.equal(value, frozen[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize(("statistics", "updates"), [(True, N_G + N_S), (False, N_S)])
def test_how_often_the_students_statistics_move(statistics: bool, updates: int) -> None:
    teacher, student, generator = _networks()
    transfer = _transfer(teacher, student, generator, generator_step_statistics=statistics)
    transfer.step(lambda draw: _noise(0, draw))
    assert student.bn.num_batches_tracked == updates


def test_without_beta_there_is_no_attention_term() -> None:
    runs = []
    for settings in ({"beta": 0.0, "attention": "l2"}, {"beta": 0.0}):
        teacher, student, generator = _networks()
        metrics = _transfer(teacher, student, generator, **settings).step(lambda draw: _noise(0, draw))
        assert metrics["attention"] == 0
        runs.append(student.fc.weight)
    assert torch.equal(*runs)


def test_metrics_describe_the_last_student_step() -> None:
    teacher, student, generator = _networks()
    seen: list[Tensor] = []
    transfer = _transfer(teacher, student, generator)
    student.register_forward_hook(lambda _module, _inputs, logits: seen.append(logits.detach()))
    metrics = transfer.step(lambda draw: _noise(0, draw))
    probabilities = torch.softmax(seen[-1], 1)
    assert metrics["student_confidence"].item() == pytest.approx(probabilities.max(1).values.mean().item())
    shares = [(probabilities.argmax(1) == c).double().mean().item() for c in range(5)]
    assert metrics["student_classes"].tolist() == pytest.approx(shares)
    assert not any(metric.requires_grad for metric in metrics.values())
