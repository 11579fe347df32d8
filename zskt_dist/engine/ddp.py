"""The plain engine: a module, its optimizer and its schedule, under DDP where there are several workers."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from zskt_dist.engine.base import Engine, State

# Buffers stay local: DDP's broadcast would overwrite the batch-norm statistics of all workers with
# rank 0's, and forbids two forward passes before a backward one. torch 2.15 has renamed the switch.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_LOCAL_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}

# Strides of a 1x1 kernel are ambiguous, so those of its gradient and bucket may differ; that costs no time.
warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


class DDPEngine(Engine):
    """An `Engine` in which each worker holds the whole network and optimizer.

    Args:
        find_unused_parameters: True if some parameters may not affect the network's output, such as those of auxiliary
            heads; they stay as they are. Costs a walk through the graph in every step.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        schedule: Callable[[int], float],
        *,
        clip_norm: float = 0.0,
        weight: float = 1.0,
        find_unused_parameters: bool = False,
    ) -> None:
        super().__init__(network, optimizer, schedule, clip_norm=clip_norm, weight=weight)
        self._forward: nn.Module = network
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._forward = DistributedDataParallel(
                network,
                gradient_as_bucket_view=True,
                find_unused_parameters=find_unused_parameters,
                **_LOCAL_BUFFERS,
            )

    def __call__(self, x: Tensor) -> Any:
        return self._forward(x)

    def whole(self) -> AbstractContextManager[nn.Module]:
        return nullcontext(self.raw)

    def accumulate(self, *parts: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Micro-batches, as `zip` gives them; DDP averages the sum of their gradients in the last backward."""
        *first, last = zip(*parts, strict=True)
        with self._forward.no_sync() if isinstance(self._forward, DistributedDataParallel) else nullcontext():
            yield from first
        yield last

    def backward(self, loss: Tensor) -> None:
        (loss if self.weight == 1 else self.weight * loss).backward()

    def update(self) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self._parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return norm

    def state_dict(self) -> State:
        return {
            "network": self.raw.state_dict(),
            "optimizer": {"state": self.optimizer.state_dict()["state"]},
            "scheduler": {"last_epoch": self.decays},
        }

    def load_state_dict(self, state: State) -> None:
        self.raw.load_state_dict(state["network"])
        options = self.optimizer.state_dict()["param_groups"]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": options})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # the same tensor as before: a recorded step may read it
        self._keep_layout()
        self.set_decays(state["scheduler"]["last_epoch"])

    def _keep_layout(self) -> None:
        """Gives restored state the memory layout of its parameters, which may have differed on another device.

        A fused optimizer reads both in the order of addresses.
        """
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if (
                    isinstance(value, Tensor)
                    and value.shape == parameter.shape
                    and value.stride() != parameter.stride()
                ):
                    state[name] = torch.empty_like(parameter).copy_(value)
