"""LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, for images of 8x8 and larger."""

from torch import Tensor, nn
from torch.nn import functional


class LeNet(nn.Module):
    """Two convolutions and three linear layers; `width` scales all of them.

    Args:
        in_channels: Channels of the images.
        num_classes: Length of the logits.
        image_size: Height and width of the images, at least 8 each.
        width: Factor on LeNet-5's 6, 16, 120 and 84 units.
    """

    attention_layers = ("conv1", "conv2")

    def __init__(
        self, *, in_channels: int = 1, num_classes: int = 10, image_size: tuple[int, int] = (28, 28), width: int = 1
    ) -> None:
        super().__init__()
        height, width_px = image_size
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if min(image_size) < 8:
            raise ValueError(f"LeNet needs images of at least 8x8, got {height}x{width_px}")
        self.conv1 = nn.Conv2d(in_channels, 6 * width, 5, padding=2)
        self.conv2 = nn.Conv2d(6 * width, 16 * width, 5, padding=2)
        self.fc1 = nn.Linear(16 * width * (height // 4) * (width_px // 4), 120 * width)
        self.fc2 = nn.Linear(120 * width, 84 * width)
        self.fc3 = nn.Linear(84 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, num_classes]."""
        out = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        out = functional.max_pool2d(functional.relu(self.conv2(out)), 2)
        out = functional.relu(self.fc1(out.flatten(1)))
        return self.fc3(functional.relu(self.fc2(out)))
