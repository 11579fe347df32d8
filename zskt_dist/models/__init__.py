"""Networks: teachers and students by name, the generator, and taps into any network."""

from zskt_dist.models.checkpointing import checkpoint_activations
from zskt_dist.models.generator import Generator
from zskt_dist.models.lenet import LeNet
from zskt_dist.models.registry import ImageShape, build_network, count_parameters, sharing_weights
from zskt_dist.models.taps import Beliefs, TappedNetwork
from zskt_dist.models.wide_resnet import WideResNet

__all__ = [
    "Beliefs",
    "Generator",
    "ImageShape",
    "LeNet",
    "TappedNetwork",
    "WideResNet",
    "build_network",
    "checkpoint_activations",
    "count_parameters",
    "sharing_weights",
]
