"""Networks: teachers and students by name, the generator, and taps that read the layers of any network."""

from zskt_dist.models.checkpointing import checkpoint_activations, keep_activations
from zskt_dist.models.construction import ImageShape, NetworkError, OptionsError
from zskt_dist.models.examination import Examination, breaks_far_out, examine
from zskt_dist.models.generator import Generator, input_scale
from zskt_dist.models.layers import (
    Layer,
    candidates,
    declared_layers,
    is_channels_last,
    last_of_each_size,
    observe,
    pair_by_size,
)
from zskt_dist.models.lenet import LeNet
from zskt_dist.models.libraries import InputSpec, Statistics, check_known, input_spec_of_arch, options_for_weights
from zskt_dist.models.logits import AmbiguousOutputError, ReadLogits
from zskt_dist.models.registry import ask, build_network, is_own, is_user_code, uses_all_parameters
from zskt_dist.models.resnet import ResNet
from zskt_dist.models.taps import Beliefs, TappedNetwork
from zskt_dist.models.tensors import count_parameters, device_of, sharing_weights, tensors_of
from zskt_dist.models.user_code import find_callable
from zskt_dist.models.vgg import VGG11
from zskt_dist.models.wide_resnet import WideResNet

__all__ = [
    "VGG11",
    "AmbiguousOutputError",
    "Beliefs",
    "Examination",
    "Generator",
    "ImageShape",
    "InputSpec",
    "Layer",
    "LeNet",
    "NetworkError",
    "OptionsError",
    "ReadLogits",
    "ResNet",
    "Statistics",
    "TappedNetwork",
    "WideResNet",
    "ask",
    "breaks_far_out",
    "build_network",
    "candidates",
    "check_known",
    "checkpoint_activations",
    "count_parameters",
    "declared_layers",
    "device_of",
    "examine",
    "find_callable",
    "input_scale",
    "input_spec_of_arch",
    "is_channels_last",
    "is_own",
    "is_user_code",
    "keep_activations",
    "last_of_each_size",
    "observe",
    "options_for_weights",
    "pair_by_size",
    "sharing_weights",
    "tensors_of",
    "uses_all_parameters",
]
