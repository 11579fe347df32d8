"""Architecture names to networks: `wrn-40-2`, `lenet`, `lenet-2`."""

import copy
import re
from typing import NamedTuple

from torch import Tensor, nn

from zskt_dist.models.lenet import LeNet
from zskt_dist.models.wide_resnet import WideResNet

KNOWN = "wrn-DEPTH-WIDTH with DEPTH = 6 n + 4 (wrn-16-1, wrn-40-2, …), lenet, lenet-WIDTH"


class ImageShape(NamedTuple):
    """[C, H, W] of one image."""

    channels: int
    height: int
    width: int


def build_network(arch: str, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """A freshly initialised network; draws from torch's global random state.

    Raises:
        ValueError: the name is unknown, or its numbers are not possible.
    """
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", arch):
        depth, width = (int(number) for number in match.groups())
        return WideResNet(depth, width, in_channels=image_shape.channels, num_classes=num_classes)
    if match := re.fullmatch(r"lenet(?:-(\d+))?", arch):
        return LeNet(
            in_channels=image_shape.channels,
            num_classes=num_classes,
            image_size=(image_shape.height, image_shape.width),
            width=int(match.group(1) or 1),
        )
    raise ValueError(f"unknown architecture; known are {KNOWN}")


def sharing_weights(network: nn.Module) -> nn.Module:
    """A copy of a network with the very same parameters, buffers, and tensors among the attributes of its modules."""
    attributes = (value for module in network.modules() for value in vars(module).values())
    tensors = [*network.parameters(), *network.buffers(), *(each for each in attributes if isinstance(each, Tensor))]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def count_parameters(network: nn.Module) -> int:
    """Number of weights, trainable or frozen; buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())
