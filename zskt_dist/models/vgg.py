"""VGG-11 with batch norm (Simonyan & Zisserman 2015, arXiv:1409.1556) for small images, with one linear layer."""

from torch import Tensor, nn

CONVOLUTIONS = (1, 1, 2, 2, 2)
"""Convolutions in each group."""


class VGG11(nn.Module):
    """Eight convolutions in five groups, for images of 8x8 and larger.

    Max pooling opens every group but the first and rounds up, so that maps are of the images' size, half of it and so
    on, as those of the residual networks; a global average takes the place of the last pooling.

    Args:
        in_channels: Channels of the images.
        num_classes: Length of the logits.
        image_size: Height and width of the images, at least 8 each.
        channels: Channels of the first group; the others have two, four, eight and eight times as many.

    Raises:
        ValueError: the images are too small, or `channels` is not positive.
    """

    attention_layers = ("group1", "group2", "group3", "group4", "group5")

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 64,
    ) -> None:
        super().__init__()
        if min(image_size) < 8:
            raise ValueError(f"vgg11 needs images of at least 8x8, got {image_size[0]}x{image_size[1]}")
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        widths = [in_channels, *(factor * channels for factor in (1, 2, 4, 8, 8))]
        for number, convolutions in enumerate(CONVOLUTIONS):
            group = _group(widths[number], widths[number + 1], convolutions, pooled=number > 0)
            self.add_module(f"group{number + 1}", group)
        self.fc = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, num_classes]."""
        for name in self.attention_layers:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean(dim=(2, 3)))


def _group(in_channels: int, out_channels: int, convolutions: int, *, pooled: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if pooled else []
    for number in range(convolutions):
        before = in_channels if number == 0 else out_channels
        layers += [nn.Conv2d(before, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)
