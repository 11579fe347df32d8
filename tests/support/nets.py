"""Networks of a few hundred parameters."""

import torch
from torch import Tensor, nn


class TinyGenerator(nn.Module):
    """Noise [B, 5] to images [B, 1, 4, 4]."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 16)
        self.norm: nn.Module = nn.BatchNorm1d(16) if norm else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        return 2 * torch.tanh(self.norm(self.linear(z))).view(-1, 1, 4, 4)


class TinyClassifier(nn.Module):
    """Images [B, 1, 4, 4] to three classes, with two smooth layers to tap."""

    attention_layers = ("act1", "act2")

    def __init__(self, channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.act1 = nn.Tanh()
        self.conv2 = nn.Conv2d(channels, channels, 2, stride=2)
        self.act2 = nn.Tanh()
        self.fc = nn.Linear(4 * channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm(self.conv1(x)))
        return self.fc(self.act2(self.conv2(x)).flatten(1))


class Viewing(nn.Module):
    """Images [B, 1, 4, 4] to three classes; of B = 0 it cannot tell what -1 stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.view(x.size(0), -1))
