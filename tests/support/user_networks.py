"""Networks as users write them: `tests.support.user_networks:NAME`."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from zskt_dist.models import LeNet


@dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor


class Careful(nn.Module):
    """Draws in training, has a head that nobody reads, and returns what Hugging Face would."""

    def __init__(self, num_classes: int, in_channels: int, width: int = 4, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        self.auxiliary = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Answer:
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        return Answer(None, self.head(self.dropout(x)))


class Plain(nn.Module):
    """Knows all about its images, and is not asked for anything."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int = 3) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.fc = nn.Linear(channels * height * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


class Literal(nn.Module):
    """Its constructor reads numbers, which the meta device does not have."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = float(torch.ones(3).sum().item())
        self.head = nn.LazyLinear(num_classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": x.flatten(1), "scores": self.scale * self.head(x.flatten(1))}


class Undecided(nn.Module):
    """Which way it goes depends on the images' content, so torch.export cannot write it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(x.flatten(1))
        return logits if x.sum() > 0 else -logits


_SINGLE = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def always_the_same() -> nn.Module:
    return _SINGLE


def two_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


class Unhurried(LeNet):
    """As a teacher of 8x8 digits it makes an iteration last, without taking a processor's time, until a file exists."""

    def __init__(self, num_classes: int, in_channels: int, until: str) -> None:
        super().__init__(in_channels=in_channels, num_classes=num_classes, image_size=(8, 8))
        self.until = Path(until)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and not self.until.exists():  # once in an iteration, when the generator learns
            time.sleep(0.2)
        return super().forward(x)


class Brought(LeNet):
    """Comes with the weights of a file, as what `from_pretrained` returns; on higher ranks with larger ones."""

    def __init__(self, num_classes: int, path: str, untrained: str = "", per_rank: bool = False) -> None:
        super().__init__(num_classes=num_classes, image_size=(8, 8))
        weights = {name: value for name, value in load_file(path).items() if name != untrained}
        self.load_state_dict(weights, strict=not untrained)
        if per_rank and dist.is_initialized():
            with torch.no_grad():
                self.fc3.bias += dist.get_rank()


class Misdeclared(nn.Sequential):
    """Tells of a layer that it does not have."""

    attention_layers = ("0", "conv3")

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, num_classes))


def feature_maps() -> nn.Module:
    return nn.Conv2d(1, 4, 3)


def text() -> str:
    return "a network"


def broken(**options: Any) -> nn.Module:
    raise KeyError("depth")


def needs_depth(depth: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, depth))


NUMBER = 3


class Skipping(nn.Module):
    """Skips its inner layer at random, as stochastic depth does."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], width: int = 4) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(math.prod(image_shape), width), nn.Linear(width, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        if not self.training or torch.rand(1).item() < 0.5:
            x = self.inner(x.relu())
        return self.head(x)


def traced(num_classes: int) -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
    return torch.jit.trace(network, torch.zeros(2, 3, 32, 32), check_trace=False)  # type: ignore[no-any-return]
