import pytest
import torch
from torch.nn import functional

from zskt_dist.models import LeNet, count_parameters


@pytest.mark.parametrize(
    ("in_channels", "classes", "size", "width", "parameters"),
    [
        # 5·5·1·6+6, 5·5·6·16+16, 16·7·7·120+120, 120·84+84, 84·10+10
        (1, 10, (28, 28), 1, 156 + 2416 + 94_200 + 10_164 + 850),
        (3, 10, (32, 32), 1, 456 + 2416 + 122_880 + 120 + 10_164 + 850),
        (1, 3, (8, 12), 1, 156 + 2416 + 16 * 2 * 3 * 120 + 120 + 10_164 + 255),
        (1, 10, (8, 8), 2, 312 + 9632 + 32 * 4 * 240 + 240 + 240 * 168 + 168 + 1690),
    ],
)
def test_parameters(in_channels: int, classes: int, size: tuple[int, int], width: int, parameters: int) -> None:
    network = LeNet(in_channels=in_channels, num_classes=classes, image_size=size, width=width)
    assert count_parameters(network) == parameters


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (13, 9)], ids=str)
def test_forward_pass(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = LeNet(in_channels=2, num_classes=4, image_size=size)
    weights = network.state_dict()
    x = torch.randn(3, 2, *size)
    out = x
    for name in ("conv1", "conv2"):
        out = functional.conv2d(out, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=2).clamp(min=0)
        out = out.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-2, -1))
    out = out.flatten(1)
    for name in ("fc1", "fc2"):
        out = (out @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).clamp(min=0)
    expected = out @ weights["fc3.weight"].T + weights["fc3.bias"]
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (1, 28)], ids=str)
def test_images_too_small(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"at least 8x8, got {size[0]}x{size[1]}"):
        LeNet(image_size=size)
