import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from zskt_dist.algorithms.supervised import Distillation, SupervisedTraining, step_decay
from zskt_dist.engine import DDPEngine
from zskt_dist.models import TappedNetwork

MILESTONES = (0.3, 0.6, 0.8)


@pytest.mark.parametrize(
    ("iteration", "factor"),
    [(0, 1), (29, 1), (30, 0.2), (59, 0.2), (60, 0.04), (79, 0.04), (80, 0.008), (99, 0.008), (100, 0.008)],
)
def test_step_decay_of_the_paper(iteration: int, factor: float) -> None:
    """×0.2 at 30, 60 and 80 % of the run (facts, section 2)."""
    assert step_decay(iteration, 100, MILESTONES, 0.2) == pytest.approx(factor, rel=1e-12)


def test_step_decay_between_iterations_and_without_milestones() -> None:
    assert step_decay(3, 7, (0.5,), 0.1) == 1  # 3 of 7 is before one half, 4 is after
    assert step_decay(4, 7, (0.5,), 0.1) == pytest.approx(0.1)
    assert step_decay(99, 100, (), 0.2) == 1


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.usefixtures("float64")
def test_steps_are_those_of_plain_sgd() -> None:
    """SGD with momentum and weight decay written out, over several steps of a decaying rate."""
    network = _network()
    plain = copy.deepcopy(network)
    iterations, lr, momentum, weight_decay = 10, 0.3, 0.9, 1e-2
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    engine = DDPEngine(TappedNetwork(network), optimizer, lambda i: step_decay(i, iterations, MILESTONES, 0.2))
    training = SupervisedTraining(engine)
    velocity = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    for iteration in range(iterations):
        x, label = torch.randn(8, 1, 2, 3), torch.randint(3, (8,))
        rate = lr * 0.2 ** ((iteration >= 3) + (iteration >= 6) + (iteration >= 8))
        assert engine.learning_rate == pytest.approx(rate, rel=1e-12)
        metrics = training.step(x, label)

        logits = plain(x)
        loss = -functional.log_softmax(logits, dim=1)[range(8), label].mean()
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for parameter, gradient, v in zip(plain.parameters(), gradients, velocity, strict=True):
                v.mul_(momentum).add_(gradient + weight_decay * parameter)
                parameter.sub_(rate * v)
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-10, atol=1e-12)
        norm = sum(gradient.square().sum() for gradient in gradients) ** 0.5
        torch.testing.assert_close(metrics["gradient_norm"], norm, rtol=1e-10, atol=1e-12)
        right = sum(int(row.argmax()) == int(truth) for row, truth in zip(logits, label, strict=True))
        assert metrics["train_accuracy"].item() == pytest.approx(right / 8)
        assert not any(value.requires_grad for value in metrics.values())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-10, atol=1e-12, msg=name)


def test_learns() -> None:
    """A problem that is solved by one weight: the loss falls from ln 2 to nearly nothing."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    engine = DDPEngine(TappedNetwork(network), torch.optim.SGD(network.parameters(), lr=1.0), lambda _: 1.0)
    training = SupervisedTraining(engine)
    x = torch.tensor([-2.0, -1.0, 1.0, 2.0]).view(4, 1, 1, 1)
    label = torch.tensor([0, 0, 1, 1])
    losses = [training.step(x, label)["loss"].item() for _ in range(50)]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.03


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layers", [("0",), ("0", "2"), ()])
def test_distillation_is_the_loss_of_the_few_shot_code(layers: tuple[str, ...]) -> None:
    """0.1 CE + 2 * 0.9 T^2 KL_mean(T = 4) + 1000 AT * 3 / layers, written out; one SGD step of rate 1."""
    torch.manual_seed(0)

    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 9, 5)
        )

    teacher, student = network().requires_grad_(False), network()
    plain = copy.deepcopy(student)
    engine = DDPEngine(TappedNetwork(student, layers), torch.optim.SGD(student.parameters(), lr=1.0), lambda _: 1.0)
    x, label = torch.randn(6, 1, 6, 6), torch.tensor([0, 1, 2, 3, 4, 0])
    metrics = Distillation(engine, TappedNetwork(teacher, layers)).step(x, label)

    def maps(net: nn.Module) -> list[torch.Tensor]:
        out, found = x, []
        for name, layer in net.named_children():
            out = layer(out)
            if name in layers:
                attention = out.pow(2).mean(1).flatten(1)
                found.append(attention / attention.norm(dim=1, keepdim=True))
        return found

    p = torch.softmax(teacher(x) / 4, 1)
    q = torch.softmax(plain(x) / 4, 1)
    kl = (p * (p / q).log()).sum() / (6 * 5)
    attention = sum(((a - b) ** 2).mean() for a, b in zip(maps(plain), maps(teacher), strict=True))
    hard = -torch.log_softmax(plain(x), 1)[range(6), label].mean()
    loss = 0.1 * hard + 2 * 0.9 * 16 * kl + (1000 * 3 / len(layers) * attention if layers else 0.0)
    assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-12)
    gradients = torch.autograd.grad(loss, list(plain.parameters()))
    for trained, before, gradient in zip(student.parameters(), plain.parameters(), gradients, strict=True):
        torch.testing.assert_close(trained, before - gradient, rtol=1e-10, atol=1e-12)
