"""Algorithm 2 against a plain loop, one image and one target at a time, as the authors run it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zskt_dist.algorithms.transitions import Curves, transition_curves, transition_error
from zskt_dist.models import ImageShape, build_network


def _networks(shape: ImageShape, num_classes: int) -> list[nn.Module]:
    torch.manual_seed(0)
    networks = [build_network(arch, shape, num_classes) for arch in ("wrn-10-1", "wrn-16-1")]
    for network in networks:
        network.train()
        with torch.no_grad():
            for _ in range(20):  # running statistics of an untrained network are far from its activations
                network(torch.randn(32, *shape))
        network.eval().requires_grad_(False)
    return networks


def _plain(a: nn.Module, b: nn.Module, x: Tensor, target: int, steps: int, step_size: float) -> tuple[Tensor, Tensor]:
    x_adv, p_a, p_b = x.clone(), [], []
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        y_a, y_b = a(x_adv[None]), b(x_adv[None])
        p_a.append(torch.softmax(y_a, dim=1)[0, target].item())
        p_b.append(torch.softmax(y_b, dim=1)[0, target].item())
        functional.cross_entropy(y_a, torch.tensor([target])).backward()
        assert x_adv.grad is not None
        x_adv = x_adv - step_size * x_adv.grad
    return torch.tensor(p_a), torch.tensor(p_b)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
        assert torch.get_num_threads() == count, "left as it was"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("num_classes", "rows", "threads"),
    [(10, 128, 1), (10, 7, 1), (2, 3, 1), (23, 50, 1), (10, 7, 2), (2, 1, 2), (10, 128, 4)],
)
def test_curves_are_those_of_one_image_at_a_time(num_classes: int, rows: int, threads: int) -> None:
    shape = ImageShape(3, 8, 8)
    a, b = _networks(shape, num_classes)
    x, from_class = torch.randn(3, *shape), torch.tensor([0, 1, num_classes - 1])
    with _threads(threads):
        curves = transition_curves(a, b, x, from_class, num_classes=num_classes, steps=8, step_size=30.0, rows=rows)
    assert curves.p_a.shape == curves.p_b.shape == (3, num_classes - 1, 8)
    moved = 0.0
    for image in range(3):
        others = [j for j in range(num_classes) if j != from_class[image]]
        assert curves.targets[image].tolist() == others
        for place, j in enumerate(others):
            p_a, p_b = _plain(a, b, x[image], j, 8, 30.0)
            torch.testing.assert_close(curves.p_a[image, place], p_a, atol=1e-4, rtol=0)
            torch.testing.assert_close(curves.p_b[image, place], p_b, atol=1e-4, rtol=0)
            moved = max(moved, (p_a[-1] - p_a[0]).item())
    assert moved > 0.3, "the steps were too small to tell a sum from a mean"


def test_first_value_is_of_the_image_itself_and_networks_stay_as_they_are() -> None:
    shape = ImageShape(1, 8, 8)
    a, b = _networks(shape, 10)
    before = {
        name: value.clone() for network in (a, b) for name, value in network.state_dict(prefix=str(id(network))).items()
    }
    x = torch.randn(2, *shape)
    curves = transition_curves(a, b, x, torch.tensor([3, 3]), num_classes=10, steps=1)
    torch.testing.assert_close(curves.p_a[:, :3, 0], torch.softmax(a(x), dim=1)[:, :3])
    torch.testing.assert_close(curves.p_b[:, 3:, 0], torch.softmax(b(x), dim=1)[:, 4:])
    after = {name: value for network in (a, b) for name, value in network.state_dict(prefix=str(id(network))).items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for network in (a, b) for parameter in network.parameters())


def test_a_network_may_keep_what_it_computes_in_its_attributes() -> None:
    """Each thread has a network of its own, with the same weights."""

    def curves(threads: int) -> Curves:
        with _threads(threads):
            return transition_curves(a, b, x, from_class, num_classes=3, steps=4)

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.kept = x.flatten(1)
            time.sleep(0.002)  # the other threads' turn
            return self.linear(self.kept)

    torch.manual_seed(0)
    a, b = (Forgetful().requires_grad_(False) for _ in range(2))
    x, from_class = torch.randn(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    expected, got = (curves(threads) for threads in (1, 4))
    torch.testing.assert_close(got, expected)


def test_transition_error_is_equation_2() -> None:
    p_a = torch.tensor([[[0.0, 1.0], [0.5, 0.5]], [[0.2, 0.2], [0.2, 0.2]]])
    p_b = torch.tensor([[[0.0, 0.0], [0.5, 0.1]], [[0.2, 0.2], [0.2, 0.2]]])
    assert transition_error(p_a, p_b).tolist() == pytest.approx([(1.0 + 0.4) / 4, 0.0])
