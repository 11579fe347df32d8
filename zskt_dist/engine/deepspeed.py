"""DeepSpeed behind the engine's verbs: optimizer state, gradients and parameters shared out over the workers (ZeRO).

This is the only file that imports deepspeed, and it does so only when something here is made.
"""

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from zskt_dist import logs
from zskt_dist.engine.base import Engine, State

_LARGEST_BUCKET = 50_000_000
"""Elements of gradients that are sent together; DeepSpeed allocates them beforehand, by default half a billion."""


@dataclass(frozen=True)
class Zero:
    """Which parts of a training are shared out over the workers, and where they are kept.

    Attributes:
        stage: 0: nothing; 1: the optimizer's state; 2: gradients too; 3: parameters too.
        offload_optimizer: Keep the optimizer's state in the machine's memory and update there (stages 1 to 3).
        offload_parameters: Keep the parameters there too (stage 3).
        bfloat16: Forward and backward passes under torch's autocast; everything that is kept or sent stays float32.
        whole_below: Parameters of fewer elements stay on every worker in stage 3, such as those of batch norm:
            gathering them costs more than it saves.
    """

    stage: int = 1
    offload_optimizer: bool = False
    offload_parameters: bool = False
    bfloat16: bool = False
    whole_below: int = 1000

    def settings(self, network: nn.Module, clip_norm: float = 0.0) -> dict[str, Any]:
        """DeepSpeed's configuration."""
        memory = {"device": "cpu", "pin_memory": _device(network).type == "cuda"}
        bucket = min(sum(parameter.numel() for parameter in network.parameters()) // 8 + 1, _LARGEST_BUCKET)
        return {
            "train_micro_batch_size_per_gpu": 1,  # required but not used: batches are made elsewhere
            "managed_gradient_accumulation": False,  # gradients add up until `update`
            "gradient_clipping": clip_norm,
            "zero_allow_untested_optimizer": True,  # SGD
            "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own optimizer would be compiled on its first use
            "torch_autocast": {"enabled": self.bfloat16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
            "zero_optimization": {
                "stage": self.stage,
                "reduce_bucket_size": bucket,
                "stage3_param_persistence_threshold": self.whole_below,
                # Parameters are released after each use; by default networks of a billion parameters would stay whole.
                "stage3_max_reuse_distance": 0,
                # Nothing is gathered ahead: the order of layers differs, and a state may be read meanwhile.
                "stage3_prefetch_bucket_size": 0,
                **({"offload_optimizer": memory} if self.offload_optimizer else {}),
                **({"offload_param": memory} if self.offload_parameters else {}),
            },
        }


class DeepSpeedEngine(Engine):
    """An `Engine` in which each worker holds a part; the same updates as `DDPEngine`, in float32.

    Args:
        zero: What is shared out.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        schedule: Callable[[int], float],
        *,
        clip_norm: float = 0.0,
        weight: float = 1.0,
        zero: Zero = Zero(),
    ) -> None:
        super().__init__(network, optimizer, schedule, clip_norm=clip_norm, weight=weight)
        self.zero = zero
        self._device = _device(network)
        # DeepSpeed puts its flat partitions in place of the parameters in the optimizer's groups.
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        self._skeleton = _skeleton(network) if zero.stage == 3 else network
        self._norm = torch.zeros(())
        if zero.stage == 0:  # DeepSpeed clips there too, but does not return the norm
            optimizer.register_step_pre_hook(self._clip)
        self._engine = _initialise(network, zero.settings(network, clip_norm if zero.stage else 0.0), optimizer)

    def __call__(self, x: Tensor) -> Any:
        return self._float32(self._engine(x))

    def ask(self, x: Tensor) -> Any:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.zero.bfloat16):
            return self._float32(self.raw(x))

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The network itself; in stage 3 a whole copy, which each worker may use on its own."""
        if self.zero.stage < 3:
            yield self.raw
            return
        network = copy.deepcopy(self._skeleton)
        for parameter, full in zip(network.parameters(), map(self._gathered, self._parameters), strict=True):
            parameter.data = full
        for buffer, now in zip(network.buffers(), self.raw.buffers(), strict=True):
            buffer.copy_(now)
        for module, like in zip(network.modules(), self.raw.modules(), strict=True):
            module.training = like.training
        yield network

    def accumulate(self, *parts: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Micro-batches, as `zip` gives them; stages 2 and 3 share out the gradient of each, the others the sum."""
        return zip(*parts, strict=True)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss if self.weight == 1 else self.weight * loss)

    def update(self) -> Tensor:
        """Clips and updates; returns the norm of the averaged gradient before clipping, infinite without a step."""
        self._engine.step()
        if self.zero.stage == 0:
            return self._norm
        norm = self._engine.get_global_grad_norm() if self._engine.was_step_applied() else float("inf")
        return torch.as_tensor(norm, dtype=torch.float32, device=self._device)

    def state_dict(self) -> State:
        """The same state as that of `DDPEngine`, gathered on the CPU of every worker."""
        network = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.raw.state_dict().items()}
        if self.zero.stage == 3:
            for name, parameter in self.raw.named_parameters(remove_duplicate=False):
                network[name] = self._gathered(parameter).cpu()
        moments = self._moments() if self.zero.stage else copy.deepcopy(self.optimizer.state_dict()["state"])
        return {"network": network, "optimizer": {"state": moments}, "scheduler": {"last_epoch": self.decays}}

    def load_state_dict(self, state: State) -> None:
        with _zero().GatheredParameters(self._parameters, modifier_rank=0):
            self.raw.load_state_dict(state["network"])
        if self.zero.stage:
            self._engine.optimizer.refresh_fp32_params()
            self._load_moments(state["optimizer"]["state"])
        else:
            options = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": options})
        self.set_decays(state["scheduler"]["last_epoch"])

    def _moments(self) -> dict[int, State]:
        """The `state` of torch's `Optimizer.state_dict`, gathered from partitions."""
        from deepspeed.utils import safe_get_full_optimizer_state

        parameters = list(chain.from_iterable(self._groups))
        numbers = {parameter: number for number, parameter in enumerate(parameters)}
        kept: Mapping[str, Any] = self.optimizer.state.get(self._partitions[0], {})  # none before the first step
        return {
            number: {
                key: safe_get_full_optimizer_state(parameter, key).cpu()
                if _is_shared(key, value)
                else _copied(value, torch.device("cpu"))  # a copy for each: torch would count in one shared tensor
                for key, value in kept.items()
            }
            for parameter, number in numbers.items()
            if kept and parameter.requires_grad
        }

    def _load_moments(self, saved: Mapping[int, State]) -> None:
        example: Mapping[str, Any] = next(iter(saved.values()), {})
        for flat in self._partitions:  # the state that a first step would have made
            self.optimizer.state[flat] = {
                key: torch.zeros_like(flat) if _is_shared(key, value) else _copied(value, flat.device)
                for key, value in example.items()
            }
        if self.zero.stage < 3:
            self._engine.optimizer._hp_optimizer_states_linked = False
            if example:
                self._engine.optimizer._lazy_init_hp_params_optimizer_state()
        for number, parameter in enumerate(chain.from_iterable(self._groups)):
            for key, value in saved.get(number, {}).items():
                if _is_shared(key, value):
                    self._set_moment(parameter, key, value)

    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if self.zero.stage < 3:
            safe_set_full_optimizer_state(parameter, value, key)
            return
        # DeepSpeed pads parameters that workers cannot share evenly, but not this value.
        size: int = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        padded = functional.pad(value.flatten(), (0, size * dist.get_world_size() - value.numel()))
        safe_set_local_optimizer_state(parameter, padded[size * dist.get_rank() :][:size], key)

    @property
    def _partitions(self) -> list[Tensor]:
        """This worker's parts of the parameters, flat, as the optimizer sees them."""
        inner = self._engine.optimizer
        flat = inner.fp32_partitioned_groups_flat if self.zero.stage == 3 else inner.single_partition_of_fp32_groups
        return list(flat)

    def _gathered(self, parameter: nn.Parameter) -> Tensor:
        """A copy of a whole parameter."""
        with _zero().GatheredParameters([parameter]):
            return parameter.detach().clone()

    def _clip(self, *_: object) -> None:
        self._norm = nn.utils.clip_grad_norm_(self._parameters, self.clip_norm)

    def _float32(self, answer: Any) -> Any:
        return tree_map_only(Tensor, Tensor.float, answer) if self.zero.bfloat16 else answer


def shard(network: nn.Module, *, whole_below: int = Zero.whole_below) -> nn.Module:
    """Shares out the parameters of a frozen `network` over the workers (ZeRO-3), in place, and returns it.

    Each layer is gathered when it computes, so all workers must call the network equally often.
    """
    engine = _initialise(network, Zero(stage=3, whole_below=whole_below).settings(network))
    network.__dict__["_zskt_engine"] = engine  # keeps its hooks alive; not a submodule
    return network


def _initialise(network: nn.Module, settings: dict[str, Any], optimizer: Optimizer | None = None) -> Any:
    """DeepSpeed's engine in the default process group."""
    device = _device(network)
    # DeepSpeed reads its device from the environment, here and in stage 3 again and again.
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed

    logs.adopt("DeepSpeed")
    logging.getLogger("DeepSpeed").addFilter(_concerns_users)
    # Without this it would first compile a collective for shared memory, which is not used here.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _join(device)
    return deepspeed.initialize(model=network, optimizer=optimizer, config=settings)[0]


def _concerns_users(record: logging.LogRecord) -> bool:
    """False for a warning of optimizers that are not DeepSpeed's own: those used here are tested here."""
    return "untested optimizer" not in record.getMessage()


_joined: dist.ProcessGroup | None = None


def _join(device: torch.device) -> None:
    """Gives DeepSpeed the default process group; where there is none, makes one of this worker alone."""
    import deepspeed
    from deepspeed.utils import groups

    global _joined
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    if dist.group.WORLD is not _joined:  # it would stay with a group that has ended
        deepspeed.comm.comm.cdb = None
        groups._release_process_group_references()
        _joined = dist.group.WORLD


def _zero() -> Any:
    import deepspeed

    return deepspeed.zero


def _is_shared(key: str, value: Any) -> bool:
    """True if an entry of an optimizer's state has one element for each element of the parameter."""
    return isinstance(value, Tensor) and key != "step"


def _copied(value: Any, device: torch.device) -> Any:
    return value.to(device, copy=True) if isinstance(value, Tensor) else value


def _skeleton(network: nn.Module) -> nn.Module:
    """A copy of `network` without the memory of its parameters."""
    skeleton = copy.deepcopy(network)
    for parameter in skeleton.parameters():
        parameter.data = parameter.data.new_empty(0)
    return skeleton


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
