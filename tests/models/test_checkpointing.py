"""Recomputed activations: the same numbers to the last bit, and less kept for the backward pass."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.support.saved import saved_bytes
from zskt_dist.models import (
    Beliefs,
    Generator,
    ImageShape,
    TappedNetwork,
    build_network,
    checkpoint_activations,
    keep_activations,
)
from zskt_dist.models.checkpointing import blocks

SHAPE = ImageShape(3, 16, 16)


def _network(arch: str, classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    if arch == "resnet":
        return torchvision.models.resnet18(num_classes=classes)
    return build_network(arch, SHAPE, classes)


def _images(seed: int, count: int = 6) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def _loss(beliefs: Beliefs) -> Tensor:
    return beliefs.logits.square().mean() + sum(activation.square().mean() for activation in beliefs.activations)


def _in_training(network: nn.Module, layers: tuple[str, ...]) -> list[Tensor]:
    """Two passes before each backward one, as there are with two losses, and a pass whose gradient is for x alone."""
    tapped = TappedNetwork(network, layers)
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    gradients = []
    for step in range(3):
        x = _images(step).requires_grad_(True)
        adam.zero_grad()
        (_loss(tapped(x)) + _loss(tapped(x + 1))).backward()
        gradients += [x.grad, *(parameter.grad.clone() for parameter in network.parameters())]
        adam.step()
        network.requires_grad_(False)
        x = _images(step).requires_grad_(True)
        _loss(tapped(x)).backward()
        gradients.append(x.grad)
        network.requires_grad_(True)
    return gradients


LAYERS = [
    ("wrn-16-1", ("group1", "group3")),
    ("wrn-16-1", ("group2.0.bn2", "group3.1")),  # inside a block, and a block itself
    ("lenet", ("conv1", "conv2")),  # one block, with taps inside
    ("resnet", ("layer1", "layer2", "layer3", "layer4")),
]


@pytest.mark.parametrize(("arch", "layers"), LAYERS, ids=str)
def test_gradients_parameters_and_statistics_are_equal_to_the_last_bit(arch: str, layers: tuple[str, ...]) -> None:
    plain = _network(arch)
    recomputed = copy.deepcopy(plain)
    checkpoint_activations(recomputed)
    expected, mine = _in_training(plain, layers), _in_training(recomputed, layers)
    assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))
    assert list(recomputed.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(recomputed.state_dict()[name], value), name
    counts = [value for name, value in plain.state_dict().items() if name.endswith("num_batches_tracked")]
    assert all(count == 9 for count in counts)


def test_a_frozen_teacher_in_eval_mode_passes_the_same_gradient_on() -> None:
    plain = _network("wrn-16-1")
    plain(_images(9))  # statistics that are not the initial ones
    plain.eval().requires_grad_(False)
    recomputed = copy.deepcopy(plain)
    checkpoint_activations(recomputed)
    gradients = []
    for network in (plain, recomputed):
        x = _images(1).requires_grad_(True)
        _loss(TappedNetwork(network, ("group2",))(x)).backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in recomputed.state_dict().items())


def _saved(network: nn.Module, x: Tensor) -> int:
    return saved_bytes(lambda: network(x))


@pytest.mark.parametrize(("arch", "share"), [("wrn-40-1", 0.25), ("resnet", 0.35)])
def test_less_is_kept_for_the_backward_pass(arch: str, share: float) -> None:
    network = _network(arch)
    x = _images(0, 32)
    before = _saved(network, x)
    checkpoint_activations(network)
    assert _saved(network, x) < share * before


def test_the_generator_is_one_block_of_which_only_the_noise_is_kept() -> None:
    plain = Generator(10, (3, 16, 16), (8, 4))
    recomputed = copy.deepcopy(plain)
    checkpoint_activations(recomputed)
    z = torch.randn(6, 10)
    assert _saved(recomputed, z) == z.nbytes < _saved(plain, z) / 100
    for network in (plain, recomputed):
        network(z).square().sum().backward()
    assert torch.equal(recomputed.conv1.weight.grad, plain.conv1.weight.grad)
    assert recomputed.bn1.num_batches_tracked == plain.bn1.num_batches_tracked == 2


def test_dropout_drops_the_same_again() -> None:
    network = nn.Sequential(nn.Linear(4, 4), _Dropping(), nn.Linear(4, 1))
    checkpoint_activations(network)
    outputs: list[Tensor] = []
    network[1].drop.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
    network(torch.ones(8, 4)).sum().backward()
    assert len(outputs) == 2  # in the forward pass and again in the backward one
    assert torch.equal(*outputs)


class _Dropping(nn.Module):
    """A block with two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(4, 16), nn.Dropout(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(self.first(x)))


def test_a_recorded_pass_leaves_the_generator_of_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA allows nobody to look at it then; what is drawn anyway could not be drawn again, and is refused."""

    def forbidden(*_: object) -> None:
        raise AssertionError("looked at while recording")

    networks = [_network("wrn-10-1") for _ in range(2)]
    checkpoint_activations(networks[0])
    with monkeypatch.context() as patch:
        patch.setattr("zskt_dist.models.checkpointing._is_recorded", lambda inputs: True)
        patch.setattr("torch.get_rng_state", forbidden)
        _loss(TappedNetwork(networks[0])(_images(0))).backward()
    _loss(TappedNetwork(networks[1])(_images(0))).backward()
    for mine, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)

    dropping = nn.Sequential(_Dropping())
    checkpoint_activations(dropping)
    monkeypatch.setattr("zskt_dist.models.checkpointing._is_recorded", lambda inputs: True)
    with pytest.raises(RuntimeError, match="draws random numbers in a block"):
        dropping(torch.ones(8, 4, requires_grad=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_has_its_own_blocks(copied: Callable[[nn.Module], nn.Module]) -> None:
    network = _network("wrn-10-1")
    checkpoint_activations(network)
    other = copied(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    x = _images(0)
    assert other(x).abs().max() == 0
    assert network(x).abs().max() > 0


def test_without_gradients_nothing_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network("wrn-10-1")
    checkpoint_activations(network)
    monkeypatch.setattr("zskt_dist.models.checkpointing.checkpoint", None)
    with torch.no_grad():
        network(_images(0))


def test_twice_is_once() -> None:
    network = _network("wrn-10-1")
    for _ in range(2):
        checkpoint_activations(network)
    calls = []
    network.group1[0].conv1.register_forward_hook(lambda *_: calls.append(None))
    network(_images(0)).sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (lambda: build_network("wrn-10-1", SHAPE, 5), ["group1.0", "group2.0", "group3.0"]),
        (torchvision.models.resnet18, [f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1)]),
        (lambda: build_network("lenet", SHAPE, 5), []),
        (torchvision.models.vgg11, []),
        (lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.ModuleList([_Dropping()])), ["1.0"]),
    ],
)
def test_blocks(network: Callable[[], nn.Module], names: list[str]) -> None:
    built = network()
    found = [next(name for name, module in built.named_modules() if module is block) for block in blocks(built)]
    assert found == names


def test_a_block_with_a_forward_of_its_own_keeps_it() -> None:
    network = build_network("wrn-10-1", SHAPE, 5).eval()
    block = next(blocks(network))
    plain, mine = network(_images(0)), type(block).forward
    block.forward = lambda x: 2 * mine(block, x)
    doubled, own = network(_images(0)), block.forward
    assert not torch.allclose(plain, doubled)
    checkpoint_activations(network)
    assert torch.equal(network(_images(0)), doubled)
    keep_activations(network)
    assert block.forward is own
