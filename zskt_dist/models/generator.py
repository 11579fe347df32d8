"""The paper's generic generator: noise to images in the teacher's normalised input space.

Shapes: B batch, z noise dimensions, C channels, H and W spatial size.
"""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEAST_STD = 0.02
"""Of the pixels of a set of images; a smaller number, such as 1/255, states a range."""
_PIXELS = 0.5, 0.289
"""Mean and deviation of pixels that are spread evenly from black to white."""


def input_scale(
    statistics: tuple[Sequence[float], Sequence[float]] | None,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation that images have in a network's input space, of each channel; None: 0 and 1.

    Images that are normalised by their own mean and deviation have 0 and 1. But a mean of 0 and a deviation of 1, or of
    1/255, are no statistics of pixels in [0, 1]: they state the range that a network takes. Then pixels are taken to
    be spread evenly from black to white.

    Args:
        statistics: Mean and standard deviation by which pixels in [0, 1] are normalised; None: they are unknown.
    """
    if statistics is None or all(
        0 < mean < 1 and _LEAST_STD <= std <= 0.5 for mean, std in zip(*statistics, strict=True)
    ):
        return None
    mean, std = _PIXELS
    return tuple((mean - m) / s for m, s in zip(*statistics, strict=True)), tuple(std / s for s in statistics[1])


class Generator(nn.Module):
    """Three convolutions with two nearest-neighbour upsamplings in between (authors' code).

    The last batch norm is affine and there is no tanh: pixels are not bounded, and on average they
    have the statistics of normalised images. With `statistics` a sigmoid bounds them to what images can be, and
    normalises them as those of the teacher are.

    Args:
        z_dim: Dimensions of the noise.
        image_shape: (C, H, W) of the images; sizes not divisible by 4 are generated larger and cropped.
        channels: Channels of the two hidden stages.
        statistics: Mean and standard deviation of each channel of pixels in [0, 1]; None: pixels are not bounded.

    Attributes:
        low_resolution: True if upsampling and convolution are one operation (`upsampled_conv2d`).
        channels_last: True if activations and images have their channels innermost in memory.
        autocast: Type of the arithmetic; None: that of the weights. Images are always float32.
    """

    low_resolution = False
    channels_last = False
    autocast: torch.dtype | None = None

    def __init__(
        self,
        z_dim: int = 100,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        channels: tuple[int, int] = (128, 64),
        statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        out_channels, *self.image_size = image_shape
        first, second = channels
        self.seed_shape = (first, *(ceil(size / 4) for size in self.image_size))
        self.project = nn.Linear(z_dim, first * self.seed_shape[1] * self.seed_shape[2])
        self.bn0 = nn.BatchNorm2d(first)
        self.conv1 = nn.Conv2d(first, first, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, out_channels, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in statistics or ((), ()))
        self.bounded = statistics is not None
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    @torch.no_grad()
    def begin_at(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """The first images have this mean and deviation in each channel, instead of 0 and 1."""
        self.bn3.weight.copy_(torch.tensor(std))
        self.bn3.bias.copy_(torch.tensor(mean))

    def forward(self, z: Tensor) -> Tensor:
        """[B, z_dim] -> [B, C, H, W]."""
        if self.autocast is None:
            return self._images(z)
        with torch.autocast(z.device.type, self.autocast, cache_enabled=False):
            return self._images(z).float()

    def _images(self, z: Tensor) -> Tensor:
        height, width = self.image_size
        x = self.project(z).view(-1, *self.seed_shape)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)  # all later operations keep this layout
        x = self.bn0(x)
        x = functional.leaky_relu(self.bn1(self._on_upsampled(self.conv1, x)), 0.2)
        x = functional.leaky_relu(self.bn2(self._on_upsampled(self.conv2, x)), 0.2)
        x = self.bn3(self.conv3(x)[:, :, :height, :width])
        return (torch.sigmoid(x) - self.mean) / self.std if self.bounded else x

    def _on_upsampled(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        if self.low_resolution:
            return upsampled_conv2d(x, convolution.weight, convolution.bias)
        return convolution(functional.interpolate(x, scale_factor=2, mode="nearest"))


def upsampled_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The padded 3x3 convolution of x upsampled twofold (nearest), computed on x itself; equal up to rounding.

    Upsampled pixels are equal in pairs, so each output pixel is a sum over 2x2 pixels of x, with weights that are sums
    of the 3x3 ones. That is a transposed convolution with a 4x4 kernel and stride 2: 4 products where there were 9.

    Args:
        x: [B, C_in, H, W].
        weight: [C_out, C_in, 3, 3].
        bias: [C_out].

    Returns:
        [B, C_out, 2 H, 2 W].
    """
    kernel = functional.pad(weight.flip(2, 3), (1, 1, 1, 1))
    kernel = kernel[:, :, 1:] + kernel[:, :, :-1]
    kernel = kernel[:, :, :, 1:] + kernel[:, :, :, :-1]
    return functional.conv_transpose2d(x, kernel.transpose(0, 1), bias, stride=2, padding=1)
