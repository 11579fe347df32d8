"""Activation checkpointing: a block's activations are not kept for the backward pass but computed again there."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module) -> None:
    """From now on the activations inside the blocks of `network` are recomputed in its backward passes.

    Only the blocks' inputs are kept. Everything else about the network stays as it is: names, outputs, gradients,
    hooks, copies of it, and running statistics, which the recomputation does not move again. Where no gradient is
    needed, nothing changes. A second call changes nothing either.
    """
    for block in list(blocks(network)) or [network]:
        if not isinstance(block.forward, _Recomputed):
            block.forward = _Recomputed(block, vars(block).get("forward"))


def keep_activations(network: nn.Module) -> None:
    """Undoes `checkpoint_activations`."""
    for module in network.modules():
        recomputed = module.forward
        if isinstance(recomputed, _Recomputed):
            del module.forward
            if recomputed.own is not None:
                module.forward = recomputed.own


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Yields the outermost members of chains that have several layers with parameters and are no chain themselves.

    A chain is an `nn.Sequential` or `nn.ModuleList`. So these are the residual blocks of wide and other residual
    networks, and the blocks of transformers. Networks like LeNet and the generator have none; `checkpoint_activations`
    takes such a network as one block, which is not held while other networks are computed.
    """
    chain = isinstance(network, nn.Sequential | nn.ModuleList)
    for child in network.children():
        if chain and not isinstance(child, nn.Sequential | nn.ModuleList) and _layers(child) > 1:
            yield child
        else:
            yield from blocks(child)


def _layers(module: nn.Module) -> int:
    """Number of modules with parameters of their own."""
    return sum(next(each.parameters(recurse=False), None) is not None for each in module.modules())


class _Recomputed:
    """Replaces a block's `forward`. It is an object, not a closure, so that copies of a network call their own block.

    Args:
        own: A `forward` that was set on this block alone.
    """

    def __init__(self, block: nn.Module, own: Callable[..., Any] | None = None) -> None:
        self.block, self.own = block, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.own or partial(type(self.block).forward, self.block)
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        if torch.compiler.is_compiling():  # a compiler takes no context and needs none: it moves nothing twice
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        recorded = _is_recorded(args)
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=self.block.training and not recorded,  # in eval mode nothing is random
            context_fn=partial(self._contexts, recorded),
            **kwargs,
        )

    def _contexts(self, recorded: bool) -> tuple[AbstractContextManager[Any], AbstractContextManager[None]]:
        """Contexts of the forward pass and of the recomputation."""
        return _NothingDrawn() if recorded else nullcontext(), _on_copies(self.block)


def _is_recorded(inputs: tuple[Any, ...]) -> bool:
    """True if a CUDA graph is being recorded; code in it may not read the state of the random generator."""
    on_cuda = any(isinstance(x, Tensor) and x.is_cuda for x in inputs)
    return on_cuda and torch.cuda.is_current_stream_capturing()


class _NothingDrawn(TorchDispatchMode):
    """Makes it an error to draw random numbers: a recorded recomputation cannot draw the same ones again."""

    def __torch_dispatch__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in function.tags:
            raise RuntimeError(f"{function} draws random numbers in a block whose activations are recomputed")
        return function(*args, **kwargs or {})


@contextmanager
def _on_copies(block: nn.Module) -> Iterator[None]:
    """Lets buffers such as running statistics move on copies only: the forward pass has moved them already."""
    buffers: list[tuple[nn.Module, str, Tensor]] = [
        (module, name, buffer)
        for module in block.modules()
        if module.training
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
