"""Layers of networks of several families, against what one reads in their code."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.support.families import SHAPE, Backbone, ChannelsLast, Tokens, narrowing, plain, strided
from zskt_dist.models import (
    ImageShape,
    Layer,
    build_network,
    candidates,
    declared_layers,
    is_channels_last,
    last_of_each_size,
    observe,
    pair_by_size,
)
from zskt_dist.models.layers import is_map


def _last(network: nn.Module, image_shape: ImageShape = SHAPE) -> dict[str, int]:
    """Names of the last layers with their heights."""
    return {layer.name: size[0] for size, layer in last_of_each_size(candidates(network, image_shape)).items()}


class Positions(nn.Conv2d):
    """Makes a tensor wherever tensors are made just now."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.linspace(0, 1, x.shape[-1]))


def test_networks_on_the_meta_device_make_their_tensors_there() -> None:
    with torch.device("meta"):
        network = nn.Sequential(Positions(1, 2, 1))
    assert observe(network, SHAPE) == [Layer("0", "Positions", (1, 2, 8, 8))]


def test_networks_without_parameters_are_observed_on_the_cpu() -> None:
    assert observe(nn.Sequential(nn.Flatten()), SHAPE) == [Layer("0", "Flatten", (1, 64))]


def test_modules_are_listed_as_they_finish() -> None:
    assert [(layer.name, layer.kind, layer.output) for layer in observe(Backbone(), SHAPE)] == [
        ("body.stem", "Conv2d", (1, 3, 8, 8)),
        ("body.blocks.0.expand", "Conv2d", (1, 6, 8, 8)),
        ("body.blocks.0.reduce", "Conv2d", (1, 3, 4, 4)),
        ("body.blocks.0", "Residual", (1, 3, 4, 4)),
        ("body.blocks.1.expand", "Conv2d", (1, 6, 4, 4)),
        ("body.blocks.1.reduce", "Conv2d", (1, 3, 2, 2)),
        ("body.blocks.1", "Residual", (1, 3, 2, 2)),
        ("body", "_Body", (1, 3, 2, 2)),
        ("fc", "Linear", (1, 10)),
    ]


def test_observing_changes_nothing() -> None:
    network = plain().train()
    network.norm2.eval()  # frozen statistics
    before = copy.deepcopy(network.state_dict())
    random_state = torch.get_rng_state()
    observe(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [name for name, module in network.named_modules() if not module.training] == ["norm2"]
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


class _Twice(nn.Module):
    """Calls one activation on 8x8 and again on 4x4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.act, self.both = nn.ReLU(), _Both()

    def forward(self, x: Tensor) -> Tensor:
        first, _ = self.both(self.act(self.conv1(x)))
        return self.act(self.conv2(first)).mean(dim=(2, 3))


class _Both(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_a_module_called_twice_counts_as_it_ends_the_last_time() -> None:
    """As a tap keeps the output of its last call; and a tuple is no tensor."""
    seen = [(layer.name, layer.output) for layer in observe(_Twice().requires_grad_(False), SHAPE)]
    assert seen == [
        ("conv1", (1, 2, 8, 8)),
        ("both", None),
        ("conv2", (1, 2, 4, 4)),
        ("act", (1, 2, 4, 4)),
    ]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (plain(), {"act1": 8, "conv2": 4}),
        (strided(), {"act1": 4, "act2": 2}),
        (narrowing(), {"act1": 6, "pool": 3}),
        (Backbone(), {"body.stem": 8, "body.blocks.0": 4, "body": 2}),
        (nn.Sequential(plain(), nn.Identity()), {"0.act1": 8, "0.conv2": 4}),
        (Tokens(), {}),
        (ChannelsLast(), {}),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {}),
    ],
    ids=["plain", "strided", "narrowing", "backbone", "wrapped", "tokens", "channels last", "no maps"],
)
def test_last_layer_of_each_size(network: nn.Module, expected: dict[str, int]) -> None:
    assert _last(network) == expected


def test_families_of_torchvision() -> None:
    """As their papers' tables: a stem, then stages; MobileNetV2 halves in features 0, 2, 4, 7 and 14."""
    shape = ImageShape(3, 32, 32)
    models = torchvision.models
    assert _last(models.resnet18(), shape) == {"relu": 16, "layer1": 8, "layer2": 4, "layer3": 2}
    mobilenet = {"features.1": 16, "features.3": 8, "features.6": 4, "features.13": 2}
    assert _last(models.mobilenet_v2(), shape) == mobilenet
    transformer = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10)
    assert _last(transformer, shape) == {}


@pytest.mark.parametrize("arch", ["wrn-10-1", "lenet"])
def test_what_a_network_declares_goes_first(arch: str) -> None:
    network = build_network(arch, SHAPE, 10)
    assert [layer.name for layer in candidates(network, SHAPE)] == list(declared_layers(network))


def test_a_module_of_the_same_name_declares_nothing() -> None:
    network = Backbone()
    network.attention_layers = nn.ModuleList([nn.ReLU()])
    assert declared_layers(network) == ()
    assert "body.stem" in _last(network)


def test_maps_that_grow_again_are_passed_over() -> None:
    """As VGG pools whatever comes to 7x7."""
    network = nn.Sequential(strided()[:4], nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(3 * 49, 10))
    assert _last(network) == {"0.act1": 4, "0": 2}


def test_pixels_and_proportions() -> None:
    wide = ImageShape(3, 30, 61)

    def layer(*output: int) -> Layer:
        return Layer("layer", "Conv2d", (1, *output))

    for height, width in ((15, 31), (8, 16), (4, 8), (2, 4), (30, 61), (7, 15)):  # halved, rounded up or down
        assert is_map(layer(5, height, width), wide)
    assert not is_map(layer(5, 15, 15), wide)
    assert not is_map(layer(5, 1, 1), wide)
    assert not is_map(layer(8, 16), wide)
    assert not is_map(layer(8, 16, 96), wide)
    assert is_channels_last(layer(8, 16, 96), wide)
    assert not is_channels_last(layer(96, 8, 16), wide)
    assert not is_channels_last(layer(16, 96), wide)


def _layers(*sizes: int) -> list[Layer]:
    return [Layer(f"{number}", "Conv2d", (1, 7, size, size)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("teacher", "student", "resize", "expected"),
    [
        ((8, 8, 4, 2), (8, 4, 4), False, [(1, 0), (2, 2)]),
        ((8, 4, 8), (8, 4), False, [(0, 0), (1, 1)]),  # what grows again is passed over
        ((8, 4), (7, 3), False, []),
        ((8, 4), (), False, []),
        ((), (8, 4), True, []),
        ((8, 4, 2), (4, 2), True, [(1, 0), (2, 1)]),  # equal ones are nearest
        ((8, 4), (7, 3), True, [(0, 0), (1, 1)]),
        ((16, 8, 4, 2), (28, 14, 7), True, [(0, 1), (1, 2)]),  # 28 is nearest to 16, which is nearer to 14
        ((8,), (32, 16), True, [(0, 1)]),
    ],
)
def test_pairs(
    teacher: tuple[int, ...], student: tuple[int, ...], resize: bool, expected: list[tuple[int, int]]
) -> None:
    pairs = pair_by_size(_layers(*teacher), _layers(*student), resize=resize)
    assert [(int(mine.name), int(theirs.name)) for mine, theirs in pairs] == expected
