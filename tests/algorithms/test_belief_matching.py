"""Algorithm 1 against a plain loop without engines, written from the paper and the facts on the authors' code."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support import algorithm_1
from tests.support.algorithm_1 import BATCH, BETA, N_G, N_S, TEMPERATURE, N, PlainLoop, cosine
from zskt_dist.algorithms.belief_matching import BeliefMatching
from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.engine import DDPEngine
from zskt_dist.models import Generator, TappedNetwork, WideResNet

LAYERS = ("group1", "group3")


def _networks() -> tuple[nn.Module, nn.Module, nn.Module]:
    torch.manual_seed(3)
    teacher = WideResNet(10, 2, in_channels=1, num_classes=5).double().eval().requires_grad_(False)
    student = WideResNet(10, 1, in_channels=1, num_classes=5).double()
    return teacher, student, Generator(6, (1, 8, 8), (8, 4)).double()


def _noise(iteration: int, draw: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * iteration + draw)
    return torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)


def _engines(student: nn.Module, generator: nn.Module) -> tuple[DDPEngine, DDPEngine]:
    tapped = TappedNetwork(student, LAYERS)
    return (
        DDPEngine(generator, torch.optim.Adam(generator.parameters(), lr=1e-3), cosine, clip_norm=0.5),
        DDPEngine(tapped, torch.optim.Adam(tapped.parameters(), lr=2e-3), cosine, clip_norm=0.5),
    )


def _transfer(teacher: nn.Module, student: nn.Module, generator: nn.Module, **settings: Any) -> BeliefMatching:
    generator_engine, student_engine = _engines(student, generator)
    chosen = {"gap": belief_gap(), "beta": BETA, "generator_steps": N_G, "student_steps": N_S} | settings
    return BeliefMatching(generator_engine, student_engine, TappedNetwork(teacher, LAYERS), **chosen)


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
            optimizer.param_groups[0]["lr"] = rate * cosine(iteration)
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


VARIANTS = [
    {"mode": "post_update"},
    {"mode": "pre_update"},
    {"mode": "fresh"},
    {"mode": "post_update", "divergence": "reverse_kl", "reduction": "batchmean", "attention": "l2"},
    {"mode": "fresh", "divergence": "jensen_shannon", "attention": "l2"},
    {"mode": "pre_update", "reduction": "batchmean", "clip_norm": 1e9},
]


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: " ".join(map(str, variant.values())))
def test_parameters_and_metrics_equal_the_plain_loop(variant: dict[str, Any], norm: bool) -> None:
    """Batch norm in the student is in training mode in the generator's steps too, and its statistics move there."""
    expected_networks = algorithm_1.networks(norm=norm)
    expected = PlainLoop(*expected_networks, **variant).run()
    networks = algorithm_1.networks(norm=norm)
    initial = [copy.deepcopy(network.state_dict()) for network in networks]
    transfer = algorithm_1.transfer(
        *networks,
        clip_norm=variant.get("clip_norm", 0.05),
        pseudo_batch=variant["mode"],
        attention=variant.get("attention", "squared_mean"),
        gap=belief_gap(
            variant.get("divergence", "forward_kl"),
            temperature=TEMPERATURE,
            reduction=variant.get("reduction", "mean"),
        ),
    )
    for iteration in range(N):
        metrics = transfer.step(lambda draw, i=iteration: algorithm_1.noise(i, draw))
        assert metrics.keys() == expected[iteration].keys()
        for name, value in expected[iteration].items():
            torch.testing.assert_close(metrics[name], value.detach(), rtol=1e-9, atol=1e-10, msg=name)
            assert not metrics[name].requires_grad
    teacher, student, generator = networks
    for name, value in expected_networks[1].state_dict().items():
        torch.testing.assert_close(student.state_dict()[name], value, rtol=1e-10, atol=1e-10, msg=name)
    for name, value in expected_networks[2].named_parameters():
        torch.testing.assert_close(generator.get_parameter(name), value, rtol=1e-10, atol=1e-10, msg=name)
    # and something was learned, but not by the teacher
    for network, before, moved in zip(networks, initial, (False, True, True), strict=True):
        assert not network.training if network is teacher else network.training
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items()) is not moved
    assert (student.fc.weight - initial[1]["fc.weight"]).abs().max() > 1e-3


class _Witness:
    """Notes what each `update` of an engine does to the parameters and gradients of the other network."""

    def __init__(self, engine: DDPEngine, other: nn.Module) -> None:
        self.steps = 0
        self._backward, self._update, self._other = engine.backward, engine.update, other
        engine.backward, engine.update = self.backward, self.update

    def backward(self, loss: Tensor) -> None:
        for parameter in self._other.parameters():
            parameter.grad = None
        self._backward(loss)

    def update(self) -> Tensor:
        before = copy.deepcopy(self._other.state_dict())
        norm = self._update()
        assert norm > 0
        assert all(parameter.grad is None for parameter in self._other.parameters())
        assert all(torch.equal(value, before[name]) for name, value in self._other.state_dict().items())
        self.steps += 1
        return norm


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
def test_each_network_is_alone_in_its_steps(mode: str) -> None:
    teacher, student, generator = algorithm_1.networks()
    transfer = algorithm_1.transfer(teacher, student, generator, pseudo_batch=mode)
    of_generator, of_student = _Witness(transfer.generator, student), _Witness(transfer.student, generator)
    for iteration in range(2):
        transfer.step(lambda draw, i=iteration: algorithm_1.noise(i, draw))
    assert (of_generator.steps, of_student.steps) == (2 * N_G, 2 * N_S)
    assert all(parameter.requires_grad for parameter in [*student.parameters(), *generator.parameters()])
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
def test_the_teacher_is_asked_no_more_than_needed(mode: str) -> None:
    """Once per generator step; then once for all student steps, not at all before the update, or for every new z."""
    teacher, student, generator = algorithm_1.networks()
    asked: list[bool] = []
    teacher.register_forward_hook(lambda *_: asked.append(torch.is_grad_enabled()))
    drawn: list[int] = []

    def noise(draw: int) -> Tensor:
        drawn.append(draw)
        return algorithm_1.noise(0, draw)

    algorithm_1.transfer(teacher, student, generator, pseudo_batch=mode).step(noise)
    for_student = {"post_update": 1, "pre_update": 0, "fresh": N_S}[mode]
    assert asked == [True] * N_G + [False] * for_student
    assert drawn == ([0, 1, 2, 3] if mode == "fresh" else [0])


def test_learning_rates_follow_the_cosine_once_per_iteration() -> None:
    """N = 3: factors (1 + cos 0)/2 = 1, (1 + 1/2)/2 = 3/4, (1 - 1/2)/2 = 1/4, and 0 after the run."""
    transfer = algorithm_1.transfer(*algorithm_1.networks())
    for iteration, factor in enumerate((1, 0.75, 0.25)):
        assert transfer.generator.learning_rate == pytest.approx(1e-3 * factor, rel=1e-12)
        assert transfer.student.learning_rate == pytest.approx(2e-3 * factor, rel=1e-12)
        transfer.step(lambda draw, i=iteration: algorithm_1.noise(i, draw))
    assert transfer.generator.learning_rate == pytest.approx(0, abs=1e-15)
    assert transfer.student.learning_rate == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
@pytest.mark.parametrize("moves", [True, False], ids=["update", "keep"])
def test_statistics_in_the_generator_step(mode: str, moves: bool) -> None:
    """Whether running statistics are recorded changes them, and no parameter: training normalises by the batch."""
    teacher, student, generator = algorithm_1.networks(norm=True)
    before = student.norm.running_mean.clone()
    transfer = algorithm_1.transfer(teacher, student, generator, pseudo_batch=mode, generator_step_statistics=moves)
    seen: list[int] = []
    update = transfer.generator.update
    transfer.generator.update = lambda: (seen.append(int(student.norm.num_batches_tracked)), update())[1]
    for iteration in range(2):
        transfer.step(lambda draw, i=iteration: algorithm_1.noise(i, draw))
    assert seen == ([1, 2, 6, 7] if moves else [0, 0, 3, 3])
    assert student.norm.num_batches_tracked == 2 * (N_S + N_G * moves)
    assert student.norm.track_running_stats
    assert (student.norm.running_mean - before).abs().max() > 1e-3
    assert teacher.norm.num_batches_tracked == 0

    other = algorithm_1.networks(norm=True)
    opposite = algorithm_1.transfer(*other, pseudo_batch=mode, generator_step_statistics=not moves)
    for iteration in range(2):
        opposite.step(lambda draw, i=iteration: algorithm_1.noise(i, draw))
    for mine, theirs in zip(student.parameters(), other[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(student.norm.running_mean, other[1].norm.running_mean)


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
def test_without_beta_no_maps_are_made(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("attention although beta is 0")

    for name in ("attention_map", "attention_gap"):
        monkeypatch.setattr(f"zskt_dist.algorithms.belief_matching.{name}", never)
    metrics = algorithm_1.transfer(*algorithm_1.networks(), beta=0.0, pseudo_batch=mode).step(
        lambda draw: algorithm_1.noise(0, draw)
    )
    assert metrics["attention"].item() == 0
    assert metrics["kl"].item() > 0


def test_beta_weighs_attention_in_the_students_steps_only() -> None:
    runs = []
    for beta in (0.0, 7.0):
        networks = algorithm_1.networks()
        algorithm_1.transfer(*networks, beta=beta).step(lambda draw: algorithm_1.noise(0, draw))
        runs.append(networks)
    assert all(torch.equal(a, b) for a, b in zip(runs[0][2].parameters(), runs[1][2].parameters(), strict=True))
    assert (runs[0][1].conv1.weight - runs[1][1].conv1.weight).abs().max() > 1e-4


def test_generator_widens_the_gap_and_the_student_closes_it() -> None:
    teacher, student, generator = algorithm_1.networks()
    z, gap = algorithm_1.noise(0, 0), belief_gap()

    def gap_now() -> float:
        with torch.no_grad():
            x = generator(z)
            return gap(student(x), teacher(x)).item()

    gaps = [gap_now()]
    transfer = algorithm_1.transfer(teacher, student, generator, beta=0.0, clip_norm=0.0)
    update = transfer.generator.update
    transfer.generator.update = lambda: (update(), gaps.append(gap_now()))[0]
    metrics = transfer.step(lambda _: z)
    gaps.append(gap_now())
    assert gaps[0] < gaps[1] < gaps[2] > gaps[3]
    assert metrics["generator_loss"].item() == pytest.approx(-gaps[1], rel=1e-9)  # before the last update


def test_shares_of_predicted_classes() -> None:
    """A teacher that always says class 2 with probability e^5 / (e^5 + 2), a student torn between three."""
    teacher, student, generator = algorithm_1.networks()
    with torch.no_grad():
        for network, bias in ((teacher, [0.0, 0.0, 5.0]), (student, [0.0, 0.0, 0.0])):
            network.fc.weight.zero_()
            network.fc.bias.copy_(torch.tensor(bias))
    transfer = algorithm_1.transfer(teacher, student, generator, student_steps=1, beta=0.0)
    metrics = transfer.step(lambda draw: algorithm_1.noise(0, draw))
    assert metrics["teacher_confidence"].item() == pytest.approx(math.exp(5) / (math.exp(5) + 2), rel=1e-12)
    assert metrics["teacher_classes"].tolist() == [0, 0, 1]
    assert metrics["student_confidence"].item() == pytest.approx(1 / 3, rel=1e-12)
    assert metrics["student_classes"].sum().item() == 1
