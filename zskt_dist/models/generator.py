"""The paper's generic generator: noise to images in the teacher's normalised input space.

Shapes: B batch, z noise dimensions, C channels, H and W spatial size.
"""

from math import ceil

from torch import Tensor, nn
from torch.nn import functional


class Generator(nn.Module):
    """Three convolutions with two nearest-neighbour upsamplings in between (authors' code; facts, section 1).

    The last batch norm is affine and there is no tanh: pixels are not bounded, and on average they
    have the statistics of normalised images.

    Args:
        z_dim: Dimensions of the noise.
        image_shape: (C, H, W) of the images; sizes not divisible by 4 are generated larger and cropped.
        channels: Channels of the two hidden stages.
    """

    def __init__(
        self, z_dim: int = 100, image_shape: tuple[int, int, int] = (3, 32, 32), channels: tuple[int, int] = (128, 64)
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

    def forward(self, z: Tensor) -> Tensor:
        """[B, z_dim] -> [B, C, H, W]."""
        height, width = self.image_size
        x = self.bn0(self.project(z).view(-1, *self.seed_shape))
        x = functional.leaky_relu(self.bn1(self.conv1(_double(x))), 0.2)
        x = functional.leaky_relu(self.bn2(self.conv2(_double(x))), 0.2)
        return self.bn3(self.conv3(x)[:, :, :height, :width])


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
