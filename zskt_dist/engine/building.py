"""Builds the engines and places the teacher of a configuration: whole on every worker, or shared out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.engine import DDPEngine, Engine
from zskt_dist.errors import ConfigError
from zskt_dist.extras import lacking


def new_engine(
    config: Config,
    world: World,
    network: nn.Module,
    make_optimizer: Callable[..., Optimizer],
    schedule: Callable[[int], float],
    *,
    batch_size: int,
    clip_norm: float = 0.0,
    bfloat16: bool = False,
    find_unused_parameters: bool = False,
) -> Engine:
    """The engine that trains `network`; all workers call this together.

    Args:
        make_optimizer: Makes the optimizer of some parameters.
        schedule: Learning-rate factor of an iteration.
        batch_size: Size of the global batch.
        clip_norm: Largest total gradient norm; 0 does not clip.
        bfloat16: True if DeepSpeed computes in bfloat16; networks of the plain engine have their own autocast.
        find_unused_parameters: True if some parameters may not affect the network's output.

    Raises:
        ConfigError: the engine is not installed or does not work on this device.
    """
    check_installed(config)
    network = synchronised(network, config, world)
    optimizer, weight = make_optimizer(network.parameters()), world.weight(batch_size)
    settings = config.engine
    if settings.kind == "ddp":
        return DDPEngine(
            network,
            optimizer,
            schedule,
            clip_norm=clip_norm,
            weight=weight,
            find_unused_parameters=find_unused_parameters,
        )

    from zskt_dist.engine.deepspeed import DeepSpeedEngine, Zero

    zero = Zero(
        settings.zero_stage,
        offload_optimizer=settings.offload_optimizer,
        offload_parameters=settings.offload_parameters,
        bfloat16=bfloat16,
    )
    return DeepSpeedEngine(network, optimizer, schedule, clip_norm=clip_norm, weight=weight, zero=zero)


def synchronised(network: nn.Module, config: Config, world: World) -> nn.Module:
    """`network`; with `batch_norm: sync` it normalises by statistics of the global batch (CUDA only)."""
    if config.engine.batch_norm == "local" or world.size == 1:
        return network
    if world.device.type != "cuda":
        raise ConfigError("engine.batch_norm", "sync", f"needs CUDA, this worker has {world.device}; use local")
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def check_installed(config: Config) -> None:
    """Raises ConfigError where the engine's package is missing."""
    if config.engine.kind == "deepspeed" and (problem := lacking("deepspeed")):
        raise ConfigError("engine.kind", "deepspeed", problem)


def placed_teacher(config: Config, teacher: nn.Module) -> nn.Module:
    """The frozen teacher, placed as `engine.teacher` demands; changed in place; input and output stay float32."""
    if config.engine.teacher == "bfloat16":
        return in_bfloat16(teacher)
    if config.engine.teacher == "sharded":
        from zskt_dist.engine.deepspeed import shard

        return shard(teacher)
    return teacher


def in_bfloat16(network: nn.Module) -> nn.Module:
    """`network` with weights and arithmetic in bfloat16; batch norm stays float32, as its statistics need the digits.

    Images [B, C, H, W] and logits [B, classes] are float32 as before; activations in between are bfloat16.
    """
    for module in network.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    network.register_forward_pre_hook(_to_bfloat16)
    network.register_forward_hook(_to_float32)
    return network


def _to_bfloat16(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.to(torch.bfloat16) for x in inputs)


def _to_float32(_: nn.Module, __: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    return logits.float()
