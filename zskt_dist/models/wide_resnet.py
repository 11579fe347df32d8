"""Wide residual networks, WRN-depth-width (Zagoruyko & Komodakis 2016, arXiv:1605.07146).

Shapes: B batch, C channels, H and W spatial size, k width factor.
"""

from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Pre-activation residual block with two 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H / stride, W / stride]."""
        active = functional.relu(self.bn1(x))
        out = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        # Where the shape changes, the projection reads the activated input, as in the WRN code.
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-depth-width for images of any channels and size.

    Args:
        depth: 6 n + 4 for n blocks in each of the three groups (10, 16, 22, 28, 40, …).
        width: Widening factor k; the groups have 16 k, 32 k and 64 k channels.
        in_channels: Channels of the images.
        num_classes: Length of the logits.

    Raises:
        ValueError: `depth` is not 6 n + 4.
    """

    attention_layers = ("group1", "group2", "group3")
    """Block outputs before the final batch norm, where the authors take attention maps."""

    def __init__(self, depth: int, width: int, *, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 (10, 16, 22, 28, 34, 40, …), got {depth}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        blocks = (depth - 4) // 6
        channels = 64 * width
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.group1 = _group(16, 16 * width, blocks, stride=1)
        self.group2 = _group(16 * width, 32 * width, blocks, stride=2)
        self.group3 = _group(32 * width, channels, blocks, stride=2)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, num_classes]."""
        out = self.group3(self.group2(self.group1(self.conv1(x))))
        out = functional.relu(self.bn(out))
        return self.fc(out.mean(dim=(2, 3)))


def _group(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
