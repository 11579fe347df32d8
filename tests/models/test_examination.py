"""What a network's answers to a few images show."""

import copy
import pickle
import re
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from zskt_dist.models import (
    ImageShape,
    NetworkError,
    ReadLogits,
    Statistics,
    TappedNetwork,
    breaks_far_out,
    build_network,
    examine,
)

SHAPE = ImageShape(1, 6, 6)
T = TypeVar("T", bound=nn.Module)


def _same(logits: Tensor) -> Tensor:
    return logits


class _Network(nn.Module):
    """Answers `change` of three logits."""

    norm: nn.Module

    def __init__(self, change: Callable[[Tensor], Tensor] = _same) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.change = change
        nn.init.normal_(self.head.weight)

    def logits(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
        return answer

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.logits(x))


class _NoGradient(_Network):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


class _Inference(_Network):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.logits(x).clone()


class _Detach(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class _DetachedInside(_Network):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(4), _Detach())


class _Rounded(_Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits((x * 8).round())


class _Squeezes(_Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).squeeze()


class _Averages(_Network):
    """As a batch norm without running statistics does."""

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x - x.mean(0, keepdim=True))


def _read(network: T) -> T:
    network.register_forward_hook(ReadLogits(3))
    return network


def test_logits_stay_as_they_are_and_so_does_the_network() -> None:
    network = _read(_Network())
    network.norm.eval()
    network.conv.requires_grad_(False)
    before, state = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    assert str(examine(network, SHAPE)) == "logits"
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert (network.training, network.norm.training, network.conv.training) == (True, False, True)
    assert [each.requires_grad for each in network.parameters()] == [False] * 2 + [True] * 4


@pytest.mark.parametrize("type_", [torch.float32, torch.float64, torch.bfloat16])
def test_of_probabilities_the_logarithms_are_taken(type_: torch.dtype) -> None:
    network = _read(_Network(lambda logits: logits.to(type_).softmax(dim=1)))
    found = examine(network, SHAPE)
    assert (found.answers, found.in_pairs, found.together) == ("probabilities", False, False)
    x = torch.randn(5, *SHAPE)
    expected = network.logits(x).log_softmax(dim=1)
    torch.testing.assert_close(network(x).float(), expected, atol=0.05 if type_ == torch.bfloat16 else 1e-5, rtol=0.02)
    assert torch.equal(copy.deepcopy(network)(x), network(x)), "in copies, too"


def test_probabilities_that_are_0_are_no_sign_of_anything_else() -> None:
    found = examine(_read(_Network(lambda logits: (300 * logits).softmax(dim=1))), SHAPE)
    assert (found.answers, found.in_pairs, found.together) == ("probabilities", False, False)


@pytest.mark.parametrize(
    ("limit", "statistics", "breaks"),
    [(3.5, None, True), (100.0, None, False), (300.0, ((0.5,), (1 / 255,)), True), (1e5, ((0.5,), (1 / 255,)), False)],
)
def test_networks_that_break_far_out(limit: float, statistics: Statistics | None, breaks: bool) -> None:
    class Breaks(_Network):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x.flatten(1).amax(1, keepdim=True) > limit, torch.inf, self.logits(x))

    assert breaks_far_out(Breaks().eval(), SHAPE, statistics) == breaks


def test_log_probabilities_serve_as_logits() -> None:
    network = _read(_Network(lambda logits: logits.log_softmax(dim=1)))
    assert examine(network, SHAPE).answers == "log-probabilities"
    x = torch.randn(5, *SHAPE)
    torch.testing.assert_close(network(x).softmax(dim=1), network.logits(x).softmax(dim=1))


@pytest.mark.parametrize("change", [torch.sigmoid, lambda logits: logits.clamp(0, 1)], ids=["sigmoid", "hard"])
def test_a_probability_of_its_own_for_each_class_is_refused(change: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(NetworkError, match="from 0 to 1 that do not sum to 1"):
        examine(_read(_Network(change)), SHAPE)


def test_logits_that_lie_between_0_and_1_by_chance_are_logits() -> None:
    network = _read(_Network())
    with torch.no_grad():
        network.head.weight.mul_(0.1)
        network.head.bias.fill_(0.5)
    x = torch.rand(8, *SHAPE)
    assert 0 < network.eval()(x).min() < network(x).max() < 1
    assert examine(network, SHAPE).answers == "logits"


@pytest.mark.parametrize("worst", [torch.nan, torch.inf])
def test_answers_that_are_not_finite_are_refused(worst: float) -> None:
    with pytest.raises(NetworkError, match="not finite"):
        examine(_read(_Network(lambda logits: logits * worst)), SHAPE)


@pytest.mark.parametrize(
    ("network", "where"),
    [
        (_NoGradient(), "^torch.no_grad or torch.inference_mode is on where it calls conv$"),
        (_Inference(), "torch.inference_mode is on where it calls conv"),
        (
            _Network(lambda logits: torch.from_numpy(logits.detach().numpy())),
            r"they end in _Network.forward, after head",
        ),
        (_DetachedInside(), r"they end in norm.1 \(_Detach\)"),
        (_Rounded(), r"they end in _Rounded.forward"),
    ],
    ids=["no_grad", "inference mode", "NumPy", "a layer", "rounding"],
)
def test_where_the_gradient_ends_is_said(network: nn.Module, where: str) -> None:
    assert re.search(where, examine(_read(network), SHAPE).cut)


def test_a_network_that_fails_on_one_image_is_asked_in_pairs() -> None:
    network = _read(_Squeezes())
    assert examine(network, SHAPE).in_pairs
    x = torch.randn(5, *SHAPE)
    expected = network.eval()(x)
    alone = network(x[:1])
    torch.testing.assert_close(alone, expected[:1])
    for each in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(each(x[:1]), expected[:1])
    torch.testing.assert_close(TappedNetwork(network)(x[:1]).logits, expected[:1])
    program = torch.export.export(network, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}).module()
    for size in (1, 2, 5):
        torch.testing.assert_close(program(x[:size]), expected[:size])
    torch.testing.assert_close(network(x), expected)


def test_answers_that_depend_on_the_batch_and_constant_ones_are_said() -> None:
    found = examine(_read(_Averages()), SHAPE)
    assert found.together
    assert "depends on the others in the batch" in str(found)
    found = examine(_read(_Network(lambda logits: logits * 0)), SHAPE)
    assert found.constant
    assert "the same for all images" in str(found)
    assert not found.cut, "an untrained last layer of zeros gives a gradient of zeros"


@pytest.mark.parametrize(
    "change",
    [lambda logits: nn.functional.dropout(logits, 0.5), lambda logits: logits[:, torch.randperm(3)]],
    ids=["dropout", "order"],
)
def test_answers_by_chance_are_not_taken_for_those_that_depend_on_the_batch(change: Callable[[Tensor], Tensor]) -> None:
    found = examine(_read(_Network(change)), SHAPE)
    assert (found.varies, found.together) == (True, False)
    assert str(found) == "logits; another answer to the same images each time"
    assert found.warning
    assert "chance cannot be learnt" in found.warning
    assert examine(_read(_Averages()), SHAPE).warning is None


def test_a_network_that_fails_says_why() -> None:
    with pytest.raises(NetworkError, match="cannot take images of 3x6x6: RuntimeError"):
        examine(_read(_Network()), ImageShape(3, 6, 6))


def test_images_are_in_the_range_that_the_network_takes() -> None:
    seen: list[Tensor] = []
    network = _read(_Network())
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    examine(network, SHAPE, ((0.5,), (1 / 255,)))
    assert -127.5 <= seen[0].min() < -50
    assert 50 < seen[0].max() <= 127.5


@pytest.mark.parametrize(
    "arch",
    ["timm:vit_tiny_patch16_224", "timm:resnet10t", "torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5"],
)
def test_networks_of_libraries_answer_logits(arch: str) -> None:
    shape = ImageShape(3, 32, 32)
    torch.manual_seed(0)
    found = examine(build_network(arch, shape, 4), shape)
    assert (found.answers, found.in_pairs, found.cut) == ("logits", False, "")
