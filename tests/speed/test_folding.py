"""Batch norm folded into convolutions: the same function, fewer layers, and only where it is right."""

import copy
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from zskt_dist.models import ImageShape, build_network
from zskt_dist.speed import fold_batch_norm


def _settled(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """In double precision, eval mode, with statistics and affine maps that are not the initial ones."""
    torch.manual_seed(0)
    network.double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_mean, module.running_var, module.bias.data):
                tensor.uniform_(0.5, 1.5)
    with torch.no_grad():
        network(torch.randn(shape, dtype=torch.float64))
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "size", "norms", "folded"),
    [
        # In each of the six blocks the second norm reads a convolution alone; the first reads what is added to later.
        (lambda: build_network("wrn-16-1", ImageShape(3, 8, 8), 5), 8, 13, 6),
        (lambda: torchvision.models.resnet18(num_classes=5), 32, 20, 20),
        (lambda: timm.create_model("resnet18", num_classes=5), 32, 20, 20),
    ],
    ids=["wrn-16-1", "torchvision resnet18", "timm resnet18"],
)
def test_the_function_stays(make: object, size: int, norms: int, folded: int) -> None:
    network = _settled(make(), (4, 3, size, size))
    before = copy.deepcopy(network.state_dict())
    faster, count = fold_batch_norm(network)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in faster.modules())
    assert (count, left) == (folded, norms - folded)
    x = torch.randn(4, 3, size, size, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(faster(x), network(x), rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(faster(x).square().sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(network(x).square().sum(), x)[0], rtol=1e-8, atol=1e-8)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in faster.parameters())


class _Branching(nn.Module):
    """Of three pairs only the first may be folded: the second convolution is read twice, the third used twice."""

    def __init__(self) -> None:
        super().__init__()
        for number in (1, 2, 3):
            self.add_module(f"conv{number}", nn.Conv2d(2, 2, 3, padding=1))
            self.add_module(f"norm{number}", nn.BatchNorm2d(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x))
        between = self.conv2(x)
        x = self.norm2(between) + between
        return self.norm3(self.conv3(self.norm3(self.conv3(x))))


def test_only_a_convolution_that_nobody_else_reads() -> None:
    network = _settled(_Branching(), (4, 2, 5, 5))
    faster, count = fold_batch_norm(network)
    assert count == 1
    assert isinstance(faster.norm1, nn.Identity)
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(faster(x), network(x))


def test_a_tap_that_ends_in_a_convolution_sees_what_it_saw() -> None:
    """The norm that follows lies outside of the tapped container."""
    stem = nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1))
    network = _settled(nn.Sequential(OrderedDict(stem=stem, norm=nn.BatchNorm2d(2), rest=nn.Flatten())), (4, 2, 5, 5))
    assert fold_batch_norm(network)[1] == 1
    assert fold_batch_norm(network, keep=["stem"])[1] == 0
    assert fold_batch_norm(nn.Sequential(network), keep=["0"])[1] == 1, "the whole of it is read, norm included"


def test_a_convolution_whose_weights_are_made_anew_is_left_alone() -> None:
    convolution = nn.utils.weight_norm(nn.Conv2d(2, 2, 3))
    network = _settled(nn.Sequential(convolution, nn.BatchNorm2d(2), nn.Flatten()), (4, 2, 5, 5))
    faster, count = fold_batch_norm(network)
    assert count == 0
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    assert torch.equal(faster(x), network(x))


def test_a_tapped_convolution_is_left_alone() -> None:
    network = _settled(_Branching(), (4, 2, 5, 5))
    assert fold_batch_norm(network, keep=["conv1"])[1] == 0


def test_a_batch_norm_that_does_more_is_left_alone() -> None:
    """timm's has the activation inside."""
    network = _settled(nn.Sequential(nn.Conv2d(3, 4, 3), timm.layers.BatchNormAct2d(4)), (4, 3, 5, 5))
    assert fold_batch_norm(network)[1] == 0


class _Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.mean() > 0 else self.norm(self.conv(-x))


def test_a_network_that_cannot_be_traced_works_as_it_is() -> None:
    network = _settled(_Untraceable(), (4, 3, 5, 5))
    faster, count = fold_batch_norm(network)
    x = torch.randn(3, 3, 5, 5, dtype=torch.float64)
    assert count == 0
    assert torch.equal(faster(x), network(x))
