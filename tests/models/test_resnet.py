"""ResNets and VGG for small images: sizes worked out by hand, maps that pair with those of wide residual networks."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from zskt_dist.models import VGG11, ImageShape, ResNet, TappedNetwork, build_network, count_parameters


def _block(inner: int, outer: int) -> int:
    """Weights of a residual block: two convolutions and batch norms, and a projection where channels change."""
    return 9 * inner * outer + 9 * outer * outer + 4 * outer + (inner * outer + 2 * outer if inner != outer else 0)


def _resnet_size(blocks: tuple[int, ...], k: int, channels: int, classes: int) -> int:
    widths = [k, 2 * k, 4 * k, 8 * k]
    before = [k, *widths[:-1]]
    groups = sum(_block(a, b) + (count - 1) * _block(b, b) for a, b, count in zip(before, widths, blocks, strict=True))
    return 9 * channels * k + 2 * k + groups + 8 * k * classes + classes


@pytest.mark.parametrize(("arch", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))])
@pytest.mark.parametrize("k", [64, 3])
def test_sizes_of_resnets(arch: str, blocks: tuple[int, ...], k: int) -> None:
    with torch.device("meta"):
        network = build_network(arch, ImageShape(2, 32, 32), 7, {"channels": k})
    assert count_parameters(network) == _resnet_size(blocks, k, 2, 7)


def test_resnet18_has_the_size_that_is_known_of_it() -> None:
    with torch.device("meta"):
        assert count_parameters(ResNet(18)) == 11_173_962  # of the usual CIFAR version


@pytest.mark.parametrize("k", [64, 3])
def test_sizes_of_vgg(k: int) -> None:
    with torch.device("meta"):
        network = build_network("vgg11", ImageShape(2, 32, 32), 7, {"channels": k})
    widths = [2, k, 2 * k, 4 * k, 4 * k, 8 * k, 8 * k, 8 * k, 8 * k]
    convolutions = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths))
    assert count_parameters(network) == convolutions + 8 * k * 7 + 7


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (28, 28), (32, 32)])
@pytest.mark.parametrize(("arch", "groups"), [("resnet18", 4), ("resnet34", 4), ("vgg11", 5), ("wrn-10-1", 3)])
def test_every_group_halves_the_maps_rounding_up(arch: str, groups: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = build_network(arch, ImageShape(1, *size), 5)
        tapped = TappedNetwork(network, network.attention_layers)
        beliefs = tapped(torch.zeros(3, 1, *size))
    expected = [tuple(-(-side // 2**number) for side in size) for number in range(groups)]
    assert [tuple(a.shape[2:]) for a in beliefs.activations] == expected
    assert beliefs.logits.shape == (3, 5)


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "vgg11"])
def test_images_too_small(arch: str) -> None:
    with pytest.raises(ValueError, match=f"{arch} needs images of at least 8x8, got 9x7"):
        build_network(arch, ImageShape(1, 9, 7), 5)


@pytest.mark.parametrize("make", [lambda: ResNet(18, channels=0), lambda: VGG11(channels=0)])
def test_channels_have_to_be_positive(make: type) -> None:
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        make()


def test_a_residual_block_is_its_equation() -> None:
    """relu(bn2(conv2(relu(bn1(conv1 x)))) + projection), in eval mode and with statistics that are not trivial."""
    torch.manual_seed(0)
    block = ResNet(18, channels=2).group2[0].double().eval()
    for norm in (each for each in block.modules() if isinstance(each, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)

    def normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()

    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    inner = normalised(block.bn2, block.conv2(normalised(block.bn1, block.conv1(x)).clamp(min=0)))
    outer = normalised(
        block.shortcut[1], torch.einsum("oi,bihw->bohw", block.shortcut[0].weight[:, :, 0, 0], x[..., ::2, ::2])
    )
    torch.testing.assert_close(block(x), (inner + outer).clamp(min=0))
