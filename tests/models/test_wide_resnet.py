import pytest
import torch
from torch import Tensor
from torch.nn import functional

from zskt_dist.models import WideResNet, count_parameters


def _expected_parameters(depth: int, width: int, in_channels: int, classes: int) -> int:
    """Counted from Zagoruyko & Komodakis' description: convolutions without bias, affine batch norms."""
    blocks = (depth - 4) // 6
    total = 3 * 3 * in_channels * 16  # the first convolution
    inputs = 16
    for outputs in (16 * width, 32 * width, 64 * width):
        total += 2 * inputs + 9 * inputs * outputs + 2 * outputs + 9 * outputs**2  # the group's first block
        if inputs != outputs:
            total += inputs * outputs  # its 1x1 projection
        total += (blocks - 1) * (4 * outputs + 18 * outputs**2)
        inputs = outputs
    return total + 2 * inputs + inputs * classes + classes


@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(16, 1, 0.2), (40, 1, 0.6), (16, 2, 0.7), (40, 2, 2.2)], ids=str
)
def test_sizes_of_the_paper(depth: int, width: int, millions: float) -> None:
    with torch.device("meta"):
        count = count_parameters(WideResNet(depth, width))
    assert count == _expected_parameters(depth, width, 3, 10)
    assert round(count / 1e6, 1) == millions


def test_published_exact_counts() -> None:
    """As printed by public implementations of WRN for CIFAR-10."""
    with torch.device("meta"):
        assert count_parameters(WideResNet(16, 2)) == 691_674
        assert count_parameters(WideResNet(40, 2)) == 2_243_546


@pytest.mark.parametrize(
    ("depth", "width", "in_channels", "classes"), [(10, 1, 1, 10), (22, 3, 4, 7), (28, 10, 3, 100)]
)
def test_other_sizes(depth: int, width: int, in_channels: int, classes: int) -> None:
    with torch.device("meta"):
        network = WideResNet(depth, width, in_channels=in_channels, num_classes=classes)
    assert count_parameters(network) == _expected_parameters(depth, width, in_channels, classes)


def _by_hand(network: WideResNet, x: Tensor, blocks: int) -> tuple[Tensor, list[Tensor]]:
    """Eval-mode logits and group outputs from the parameters alone."""
    state = network.state_dict()

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-5) * weight + bias).clamp(min=0)

    x = functional.conv2d(x, state["conv1.weight"], padding=1)
    groups = []
    for group, stride in (("group1", 1), ("group2", 2), ("group3", 2)):
        for block in range(blocks):
            name = f"{group}.{block}"
            step = stride if block == 0 else 1
            active = norm_relu(x, f"{name}.bn1")
            out = functional.conv2d(active, state[f"{name}.conv1.weight"], stride=step, padding=1)
            out = functional.conv2d(norm_relu(out, f"{name}.bn2"), state[f"{name}.conv2.weight"], padding=1)
            if f"{name}.shortcut.weight" in state:
                x = functional.conv2d(active, state[f"{name}.shortcut.weight"], stride=step)
            x = x + out
        groups.append(x)
    pooled = norm_relu(x, "bn").flatten(2).mean(dim=2)
    return pooled @ state["fc.weight"].T + state["fc.bias"], groups


@pytest.mark.parametrize(
    ("depth", "width", "shape", "maps"),
    [
        (10, 1, (1, 8, 8), [(16, 8, 8), (32, 4, 4), (64, 2, 2)]),
        (16, 2, (3, 32, 32), [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
        (16, 1, (3, 20, 12), [(16, 20, 12), (32, 10, 6), (64, 5, 3)]),
        (10, 1, (1, 9, 7), [(16, 9, 7), (32, 5, 4), (64, 3, 2)]),
    ],
    ids=str,
)
@pytest.mark.usefixtures("float64")
def test_forward_pass(depth: int, width: int, shape: tuple[int, int, int], maps: list[tuple[int, int, int]]) -> None:
    torch.manual_seed(0)
    network = WideResNet(depth, width, in_channels=shape[0], num_classes=5)
    for name, tensor in network.state_dict().items():
        if "bn" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)  # away from the initial ones and zeros
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected, groups = _by_hand(network.eval(), x, (depth - 4) // 6)
        torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)
        assert [tuple(group.shape[1:]) for group in groups] == maps
        out = network.conv1(x)
        for name, group in zip(WideResNet.attention_layers, groups, strict=True):
            out = network.get_submodule(name)(out)
            torch.testing.assert_close(out, group, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [4, 0, -2, 9, 11, 15, 17, 18, 20, 41])
def test_impossible_depth(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"6 n \+ 4 .*, got {depth}$"):
        WideResNet(depth, 1)


@pytest.mark.parametrize("width", [0, -1])
def test_impossible_width(width: int) -> None:
    with pytest.raises(ValueError, match=f"width must be at least 1, got {width}"):
        WideResNet(16, width)


def test_initialisation() -> None:
    """Convolutions are normal with variance 2 / fan_out, batch norms do nothing, the last bias is zero."""
    torch.manual_seed(0)
    network = WideResNet(16, 2)
    checked = 0
    for name, parameter in network.named_parameters():
        values = parameter.detach().double()
        if parameter.ndim == 4:
            outputs, _, height, width = parameter.shape
            variance = 2 / (outputs * height * width)
            relative_error = (2 / values.numel()) ** 0.5  # standard error of a normal's variance
            assert abs(values.square().mean().item() / variance - 1) < 4.5 * relative_error, name
            assert abs(values.mean().item()) < 4.5 * (variance / values.numel()) ** 0.5, name
            checked += 1
        elif ".bn" in name or name.startswith("bn"):
            assert torch.equal(values, torch.full_like(values, float(name.endswith("weight")))), name
        elif name == "fc.bias":
            assert not values.any()
    assert checked == 1 + 6 * 2 + 3  # first convolution, six blocks, three projections
