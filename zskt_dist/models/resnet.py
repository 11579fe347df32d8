"""Residual networks for small images, ResNet-18 and -34 (He et al. 2016, arXiv:1512.03385), as used on CIFAR.

The first convolution is 3x3 with stride 1, and no pooling follows it: maps are of the images' size, half, a quarter and
an eighth of it (rounded up). Shapes: B batch, C channels, H and W spatial size.
"""

from torch import Tensor, nn
from torch.nn import functional

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Residual blocks in each group, by depth."""


class BasicBlock(nn.Module):
    """Residual block with two 3x3 convolutions, each followed by batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H / stride, W / stride]."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 or -34 for images of 8x8 and larger.

    Args:
        depth: 18 or 34.
        in_channels: Channels of the images.
        num_classes: Length of the logits.
        image_size: Height and width of the images, at least 8 each.
        channels: Channels of the first group; the others have two, four and eight times as many.

    Raises:
        ValueError: the images are too small, or `channels` is not positive.
    """

    attention_layers = ("group1", "group2", "group3", "group4")

    def __init__(
        self,
        depth: int,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 64,
    ) -> None:
        super().__init__()
        if min(image_size) < 8:
            raise ValueError(f"resnet{depth} needs images of at least 8x8, got {image_size[0]}x{image_size[1]}")
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        first, second, third, fourth = BLOCKS[depth]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.group1 = _group(channels, channels, first, stride=1)
        self.group2 = _group(channels, 2 * channels, second, stride=2)
        self.group3 = _group(2 * channels, 4 * channels, third, stride=2)
        self.group4 = _group(4 * channels, 8 * channels, fourth, stride=2)
        self.fc = nn.Linear(8 * channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, num_classes]."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.group4(self.group3(self.group2(self.group1(out))))
        return self.fc(out.mean(dim=(2, 3)))


def _group(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
