"""The tensors that a network holds: where they lie, how many they are, and copies that share them."""

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def device_of(network: nn.Module) -> torch.device:
    """The device of the first parameter, else of the first buffer; the CPU where there is neither."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))


def count_parameters(network: nn.Module) -> int:
    """Number of weights, trainable or frozen; buffers do not count, and sharded weights count whole."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in network.parameters())


def tensors_of(network: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors in other attributes of modules (or in lists, tuples, dicts there), once each."""
    tensors: list[Tensor] = []
    seen: set[int] = set()  # a container may hold itself
    ahead: list[Any] = [vars(module) for module in network.modules()]
    while ahead:
        value = ahead.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, dict):
            ahead += value.values()
        elif isinstance(value, list | tuple):
            ahead += value
    return tensors


def sharing_weights(network: nn.Module) -> nn.Module:
    """A copy of a network with the very same tensors, those of `tensors_of`."""
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors_of(network)})
