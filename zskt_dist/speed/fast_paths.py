"""Chooses the fast paths of a run: the configured ones, and for `auto` those that win on the device."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from zskt_dist.config import Config
from zskt_dist.errors import ConfigError
from zskt_dist.models import Generator, TappedNetwork, device_of

# On CPU compiling takes one to two minutes and saves about a tenth (docs/speed.md): worth it from this many GFLOP on,
# half an hour at the 100 GFLOP/s of a laptop.
_COMPILE_ON_CPU_GFLOP = 180_000.0
_RECOMPILE_LIMIT = 64


@dataclass(frozen=True)
class FastPaths:
    """The fast paths of a run: the keys of `config.Speed`, with every `auto` decided."""

    channels_last: bool
    folded_teacher: bool
    low_resolution: bool
    compile: bool
    cuda_graphs: bool
    autocast: torch.dtype | None

    def __str__(self) -> str:
        """`channels last, folded teacher, …`, for people."""
        names = [name.replace("_", " ") for name, value in vars(self).items() if value is True]
        return ", ".join([*names, *([str(self.autocast).removeprefix("torch.")] if self.autocast else [])]) or "plain"

    def apply(self, *networks: Generator | TappedNetwork) -> None:
        """Makes networks, which must be on their device already, compute this way."""
        for network in networks:
            if isinstance(network, Generator):
                network.low_resolution, network.channels_last = self.low_resolution, self.channels_last
            network.autocast = self.autocast
            # On CPU the layout of activations follows the images; other weights would be no faster.
            if self.channels_last and device_of(network).type == "cuda":
                to_channels_last(network)
            if self.compile:
                compile_in_place(network)


PLAIN = FastPaths(False, False, False, False, False, None)
"""No fast paths."""


def choose_fast_paths(config: Config, device: torch.device, gflop: Callable[[], float], workers: int) -> FastPaths:
    """The choice for a run; the same for the same configuration and device, so that a resumed run takes it again.

    Args:
        gflop: Returns the operations of the whole run on this worker, in thousands of millions; called only if needed.
        workers: Number of workers of the run.

    Raises:
        ConfigError: a configured path does not work on the device.
    """
    speed, cuda = config.speed, device.type == "cuda"
    recorded = uses_cuda_graphs(config, device, workers)
    whole = config.engine.kind == "ddp"  # parameters that come and go cannot be compiled
    if speed.compile is True and not whole:
        raise ConfigError("speed.compile", True, f"does not work with engine.kind={config.engine.kind}; use auto")
    if speed.folded_teacher is True and config.engine.teacher != "replicated":
        raise ConfigError("speed.folded_teacher", True, "needs engine.teacher=replicated; use auto")
    if speed.compile is True and not cuda and compiler() is None:
        raise ConfigError("speed.compile", True, "on CPU needs a C++ compiler (g++ or clang++, or CXX); use auto")

    def chosen(name: str, wins: Callable[[], bool] = lambda: True) -> bool:
        configured = getattr(speed, name)
        return wins() if configured == "auto" else bool(configured)

    def earns_compiling() -> bool:
        return whole and not cuda and compiler() is not None and gflop() > _COMPILE_ON_CPU_GFLOP

    return FastPaths(
        channels_last=chosen("channels_last"),
        folded_teacher=chosen("folded_teacher", lambda: config.engine.teacher == "replicated"),
        low_resolution=chosen("low_resolution"),
        compile=chosen("compile", earns_compiling),
        cuda_graphs=recorded,
        autocast={"float32": None, "bfloat16": torch.bfloat16}[speed.precision],
    )


def fastest_convolutions(device: torch.device) -> None:
    """On CUDA, from now on each shape of convolution uses the algorithm that is fastest in a trial.

    Shapes are the same in every iteration, so the trials pay. Algorithms round differently, so this does nothing in
    a process that has set torch to be deterministic.
    """
    deterministic = torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic
    if device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True


def to_channels_last(network: nn.Module) -> None:
    """Converts weights and buffers of four dimensions; `Module.to` would try five, too, and fail."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def compile_in_place(network: nn.Module) -> None:
    """Makes `network` compile itself once for each batch size, when that size first comes."""
    # Networks of one class share a cache, with an entry for each batch size, network and kind of gradient; beyond the
    # limit (8) torch would go on uncompiled.
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, _RECOMPILE_LIMIT)
    # The compiler warns that there is no CUDA, even if none is needed.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    network.compile(dynamic=False)


def uses_cuda_graphs(config: Config, device: torch.device, workers: int) -> bool:
    """True if iterations are recorded as CUDA graphs.

    Not with several workers: DDP accumulates gradients on the stream that was current when it was made, which a
    recording on another stream must not wait for.

    Raises:
        ConfigError: `speed.cuda_graphs=true` is not possible here.
    """
    possible = device.type == "cuda" and workers == 1 and config.engine.kind == "ddp"
    if config.speed.cuda_graphs is True and not possible:
        here = f"this worker has {device}" if device.type != "cuda" else f"there are {workers}"
        raise ConfigError("speed.cuda_graphs", True, f"needs CUDA and a single worker, {here}; use auto")
    return possible if config.speed.cuda_graphs == "auto" else bool(config.speed.cuda_graphs)


def compiler() -> str | None:
    """The C++ compiler torch.compile would use on CPU; None where there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "clang++"))), None)
