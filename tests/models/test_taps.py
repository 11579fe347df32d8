import copy
import io
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from zskt_dist.algorithms.generator_terms import mean_cosine
from zskt_dist.engine.building import in_bfloat16
from zskt_dist.models import ImageShape, LeNet, TappedNetwork, WideResNet, build_network


def _hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def _network() -> WideResNet:
    torch.manual_seed(0)
    return WideResNet(10, 1, in_channels=1, num_classes=4)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
def test_activations_are_those_of_the_forward_pass(training: bool, x: Tensor) -> None:
    network = _network().train(training)
    manual = copy.deepcopy(network)
    beliefs = TappedNetwork(network, WideResNet.attention_layers)(x)
    first = manual.group1(manual.conv1(x))
    second = manual.group2(first)
    third = manual.group3(second)
    logits = manual.fc(torch.relu(manual.bn(third)).mean(dim=(2, 3)))
    for got, expected in zip(chain([beliefs.logits], beliefs.activations), (logits, first, second, third), strict=True):
        assert torch.equal(got, expected)


def test_order_is_that_of_the_request(x: Tensor) -> None:
    network = LeNet(image_size=(8, 8))
    beliefs = TappedNetwork(network, ["fc1", "conv1", "conv2"])(x)
    assert [tuple(a.shape) for a in beliefs.activations] == [(3, 120), (3, 6, 8, 8), (3, 16, 4, 4)]
    assert torch.equal(beliefs.activations[1], network.conv1(x))


def test_without_taps(x: Tensor) -> None:
    network = _network().eval()
    beliefs = TappedNetwork(network)(x)
    assert beliefs.activations == ()
    assert torch.equal(beliefs.logits, network(x))


def test_gradient_flows_through_activations(x: Tensor) -> None:
    network = _network()
    TappedNetwork(network, ["group1"])(x).activations[0].sum().backward()
    assert network.conv1.weight.grad is not None
    assert network.conv1.weight.grad.abs().max() > 0
    assert network.group2[0].conv1.weight.grad is None


def test_no_hooks_remain(x: Tensor) -> None:
    network = _network()
    tapped = TappedNetwork(network, WideResNet.attention_layers)
    assert _hooks(tapped) == 0
    tapped(x)
    assert _hooks(tapped) == 0


def test_no_hooks_remain_after_a_failure() -> None:
    tapped = TappedNetwork(_network(), WideResNet.attention_layers)
    with pytest.raises(RuntimeError):
        tapped(torch.randn(3, 2, 8, 8))  # one channel too many
    assert _hooks(tapped) == 0


def test_frozen_teacher_stays_in_eval_mode(x: Tensor) -> None:
    """Wrapping, asking, and `train(training)`, as whoever restores a mode does, leave the teacher as it is."""
    teacher = _network().eval().requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    tapped = TappedNetwork(teacher, WideResNet.attention_layers)
    assert not tapped.training
    tapped.train(tapped.training)
    tapped(x)
    assert not any(module.training for module in tapped.modules())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_student_stays_in_training_mode() -> None:
    tapped = TappedNetwork(_network(), ["group1"])
    assert all(module.training for module in tapped.modules())
    tapped.eval()
    assert not any(module.training for module in tapped.network.modules())


def test_state_is_the_networks() -> None:
    network = _network()
    tapped = TappedNetwork(network, WideResNet.attention_layers)
    assert list(tapped.state_dict()) == [f"network.{name}" for name in network.state_dict()]
    assert [id(p) for p in tapped.parameters()] == [id(p) for p in network.parameters()]


def test_a_replaced_layer_is_tapped(x: Tensor) -> None:
    """As batch norms are, that of several workers becomes one."""
    network = _network().eval()
    tapped = TappedNetwork(network, ["bn", "group3"])
    network.bn = nn.Identity()
    before, after = tapped(x).activations
    assert torch.equal(before, after)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_tap_themselves(how: str, x: Tensor) -> None:
    original = TappedNetwork(_network().eval(), ["group1", "group3"])
    if how == "deepcopy":
        copied = copy.deepcopy(original)
    else:
        buffer = io.BytesIO()
        torch.save(original, buffer)
        buffer.seek(0)
        copied = torch.load(buffer, weights_only=False)
    with torch.no_grad():
        copied.network.conv1.weight.mul_(2)
        expected = copied.network.group1(copied.network.conv1(x))
        assert torch.equal(copied(x).activations[0], expected)
        assert not torch.equal(original(x).activations[0], expected)


@pytest.mark.parametrize("layers", [["group9"], ["group1", "group1.0.conv3"], ["Group1"]])
def test_unknown_layer(layers: list[str]) -> None:
    with pytest.raises(ValueError, match=f"^no layer named '{layers[-1]}'; there are: conv1, group1, ") as caught:
        TappedNetwork(_network(), layers)
    assert "group1.0.bn1" in str(caught.value)


@pytest.mark.parametrize(("arch", "classifier"), [("wrn-10-1", "fc"), ("lenet", "fc3")])
def test_features_are_what_the_classifier_reads(arch: str, classifier: str) -> None:
    network = build_network(arch, ImageShape(1, 8, 8), 10).eval()
    beliefs = TappedNetwork(network, features=True)(torch.randn(4, 1, 8, 8))
    assert beliefs.features is not None
    torch.testing.assert_close(getattr(network, classifier)(beliefs.features), beliefs.logits)
    assert TappedNetwork(network)(torch.randn(4, 1, 8, 8)).features is None


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_losses_are_made_of_float32_whatever_the_arithmetic(how: str, x: Tensor) -> None:
    """Cosines of all pairs but those with themselves: eight bits of mantissa lose what is left."""
    network = LeNet(in_channels=1, image_size=(8, 8)).eval()
    tapped = TappedNetwork(in_bfloat16(network) if how == "weights" else network, features=True)
    if how == "autocast":
        tapped.autocast = torch.bfloat16
    beliefs = tapped(torch.cat([x] * 30))
    assert beliefs.logits.dtype == beliefs.features.dtype == torch.float32
    exact = mean_cosine(beliefs.features.double()).item()
    assert mean_cosine(beliefs.features).item() == pytest.approx(exact, rel=1e-5)


def test_features_need_a_linear_layer() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        TappedNetwork(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), features=True)


@pytest.mark.parametrize("training", [True, False])
def test_compiled(training: bool, x: Tensor) -> None:
    """The same beliefs from one graph; hooks stay, and note nothing when the network is asked by somebody else."""
    plain = TappedNetwork(_network().train(training), ["group1", "group3"], features=True)
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="eager", fullgraph=True)
    got, expected = compiled(x), plain(x)
    for mine, other in zip(
        (got.logits, *got.activations, got.features),
        (expected.logits, *expected.activations, expected.features),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)
    compiled.network(x)
    assert compiled._seen == {}
