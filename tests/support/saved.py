"""What autograd keeps for the backward pass, counted without `zskt_dist.tasks.memory`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], Any]) -> int:
    """Bytes of all storages saved while `forward` runs, each once, parameters too."""
    storages: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answer = forward()
    del answer
    return sum(storages.values())
