"""Networks of several families that declare no attention layers, small enough to be read."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from zskt_dist.models import ImageShape

SHAPE = ImageShape(1, 8, 8)


def plain(channels: int = 4) -> nn.Sequential:
    """8x8 maps end with `act1`, 4x4 ones with `conv2`: what follows it only normalises."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, channels, 3, padding=1),
            norm1=nn.BatchNorm2d(channels),
            act1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(channels, channels, 3, padding=1),
            norm2=nn.BatchNorm2d(channels),
            flatten=nn.Flatten(),
            fc=nn.Linear(16 * channels, 10),
        )
    )


def strided(channels: int = 3) -> nn.Sequential:
    """4x4 maps end with `act1`, 2x2 ones with `act2`; maps of one pixel follow."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, channels, 3, stride=2, padding=1),
            act1=nn.ReLU(),
            conv2=nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            act2=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(channels, 10),
        )
    )


def narrowing(channels: int = 3) -> nn.Sequential:
    """Convolutions without padding: 6x6 maps end with `act1`, 3x3 ones with `pool`."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, channels, 3),
            act1=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc=nn.Linear(9 * channels, 10),
        )
    )


class Residual(nn.Module):
    """A block that halves the image half-way: its first convolution still gives maps of the full size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.reduce = nn.Conv2d(2 * channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.expand(x).relu()) + x[:, :, ::2, ::2]


class Backbone(nn.Module):
    """A network within a network; maps end with `body.stem` (8x8), `body.blocks.0` (4x4) and `body` (2x2)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = self._Body()
        self.fc = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean(dim=(2, 3)))

    class _Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 3, 3, padding=1)
            self.blocks = nn.ModuleList([Residual(3), Residual(3)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return x


class _TokenBlock(nn.Module):
    """[B, N, C] -> [B, N, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x)).relu()


class Tokens(nn.Module):
    """As vision transformers: patches of 2x2 pixels, embedded, become 16 tokens and a class token."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(_TokenBlock(width), _TokenBlock(width))
        self.unused = nn.Linear(width, width)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.fc(self.blocks(torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1))[:, 0])


class _ChannelsLast(nn.Module):
    """[B, H, W, C] -> [B, H, W, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class ChannelsLast(nn.Module):
    """As Swin transformers: blocks give [B, 4, 4, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 6, 2, stride=2)
        self.blocks = nn.Sequential(_ChannelsLast(6), _ChannelsLast(6))
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.embed(x).permute(0, 2, 3, 1)).mean(dim=(1, 2)))
