"""The plain engine: a module, its optimizer and its schedule, under DDP where there are several workers."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

State = dict[str, Any]

# Buffers stay local: DDP's broadcast would overwrite the batch-norm statistics of all workers with
# rank 0's, and forbids two forward passes before a backward one. torch 2.15 has renamed the switch.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_LOCAL_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}

# Strides of a 1x1 kernel are ambiguous, so its gradient may carry others than its bucket; nothing is slower for it.
warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


class DDPEngine:
    """Trains `network` with `optimizer`; gradients are averaged over the workers of the default group.

    Args:
        network: On its device already, equal on all workers.
        optimizer: Over the parameters of `network`.
        schedule: Learning-rate factor of an iteration; 1 keeps the optimizer's own rate.
        clip_norm: Largest total norm of the averaged gradient; 0 does not clip.
        weight: Of this worker's loss in the average over the workers, where its slice of the batch is not an even one.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        schedule: Callable[[int], float],
        *,
        clip_norm: float = 0.0,
        weight: float = 1.0,
    ) -> None:
        self.raw = network
        self.optimizer = optimizer
        self.schedule = schedule
        self._initial_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._set_decays(0)
        self.clip_norm = clip_norm or float("inf")
        self.weight = weight
        self._parameters = list(network.parameters())
        self._forward: nn.Module = network
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._forward = DistributedDataParallel(network, gradient_as_bucket_view=True, **_LOCAL_BUFFERS)

    def __call__(self, x: Tensor) -> Any:
        return self._forward(x)

    def ask(self, x: Tensor) -> Any:
        """The raw network's answer; nothing is synchronised."""
        return self.raw(x)

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    @contextmanager
    def frozen(self, *, statistics: bool = True) -> Iterator[Callable[[Tensor], Any]]:
        """`ask`, of parameters that take no gradient."""
        norms = [] if statistics else [m for m in self.raw.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        trainable = [parameter.requires_grad for parameter in self._parameters]
        tracked = [norm.track_running_stats for norm in norms]
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        for norm in norms:
            norm.track_running_stats = False  # in training mode: normalise by the batch, record nothing
        try:
            yield self.ask
        finally:
            for parameter, was in zip(self._parameters, trainable, strict=True):
                parameter.requires_grad_(was)
            for norm, was in zip(norms, tracked, strict=True):
                norm.track_running_stats = was

    def accumulate(self, *parts: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Micro-batches, as `zip` gives them; DDP averages the sum of their gradients in the last backward."""
        *first, last = zip(*parts, strict=True)
        with self._forward.no_sync() if isinstance(self._forward, DistributedDataParallel) else nullcontext():
            yield from first
        yield last

    def backward(self, loss: Tensor) -> None:
        (loss if self.weight == 1 else self.weight * loss).backward()

    def step(self, loss: Tensor) -> Tensor:
        self.backward(loss)
        return self.update()

    def update(self) -> Tensor:
        """Clip, update; returns the norm of the averaged gradient before clipping."""
        norm = nn.utils.clip_grad_norm_(self._parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return norm

    def decay(self) -> None:
        self._set_decays(self._decays + 1)

    def state_dict(self) -> State:
        """What training has made; the optimizer's options and the schedule are the constructor's."""
        return {
            "network": self.raw.state_dict(),
            "optimizer": {"state": self.optimizer.state_dict()["state"]},
            "scheduler": {"last_epoch": self._decays},
        }

    def load_state_dict(self, state: State) -> None:
        self.raw.load_state_dict(state["network"])
        options = self.optimizer.state_dict()["param_groups"]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": options})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # the very tensor a recorded step reads, where it is one
        self._keep_layout()
        self._set_decays(state["scheduler"]["last_epoch"])

    def _keep_layout(self) -> None:
        """Lays restored state out as its parameters are, which the device of another run may have laid out differently.

        A fused optimizer goes through both by address.
        """
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if (
                    isinstance(value, Tensor)
                    and value.shape == parameter.shape
                    and value.stride() != parameter.stride()
                ):
                    state[name] = torch.empty_like(parameter).copy_(value)

    def _set_decays(self, count: int) -> None:
        self._decays = count
        for group, initial in zip(self.optimizer.param_groups, self._initial_rates, strict=True):
            rate = initial * self.schedule(count)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
