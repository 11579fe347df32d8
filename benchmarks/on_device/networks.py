"""Students whose layers do what only a device can show to be right."""

import torch
from torch import Tensor, nn


class Dropping(nn.Module):
    """Drops at random.

    Args:
        waits: Whether it also waits for the device, which no recording allows.
    """

    def __init__(self, in_channels: int, num_classes: int, waits: bool = False) -> None:
        super().__init__()
        self.waits = waits
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.norm(self.conv(x)).relu().mean((2, 3)))
        if self.waits and self.training:
            x = x / max(x.abs().max().item(), 1.0)
        return self.head(x)


class Deep(nn.Module):
    """A layer with weights of five dimensions, which have no channels-last layout [., C, H, W]."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.over_channels = nn.Conv3d(1, 2, 3, padding=1)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.over_channels(torch.relu(self.conv(x)).unsqueeze(1))  # [B, 2, 8, H, W]
        return self.head(x.relu().mean((3, 4)).flatten(1))
