"""Reads the activations of layers of any network by name."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Beliefs(NamedTuple):
    """The outputs of a network for a batch."""

    logits: Tensor
    """[B, classes]"""
    activations: tuple[Tensor, ...]
    """One [B, C_l, H_l, W_l] for each tapped layer, in the order of `layers`."""
    features: Tensor | None = None
    """Input of the last linear layer, [B, F], with `features=True`; as precise as the logits."""


class TappedNetwork(nn.Module):
    """Wraps a network so that a forward pass also returns the outputs of some of its layers.

    Args:
        network: Maps images [B, C, H, W] to logits [B, classes]; it is not changed.
        layers: Names in `network.named_modules()`.
        features: True if the input of the last linear layer is read too.

    Attributes:
        autocast: Type of the arithmetic; None: that of the weights. Logits and features, of which losses are made, are
            float32 or more either way.

    Raises:
        ValueError: the network has no layer of that name, or no linear layer.
    """

    autocast: torch.dtype | None = None

    def __init__(self, network: nn.Module, layers: Sequence[str] = (), *, features: bool = False) -> None:
        super().__init__()
        self.network = network
        self.training = network.training  # a frozen teacher stays in eval mode
        modules = dict(network.named_modules())
        unknown = [name for name in layers if name not in modules]
        if unknown:
            raise ValueError(f"no layer named {unknown[0]!r}; there are: {', '.join(name for name in modules if name)}")
        self.layers = tuple(layers)
        linear = [module for module in modules.values() if isinstance(module, nn.Linear)]
        if features and not linear:
            raise ValueError("no linear layer whose input could be read")
        self._classifier = (linear[-1],) if features else ()  # in a tuple: not a submodule of its own
        self._seen: dict[int, Tensor] = {}
        self._asked = self._hooks_stay = False
        self._staying: list[RemovableHandle] = []

    def forward(self, x: Tensor) -> Beliefs:
        """[B, C, H, W] -> logits and tapped activations."""
        if self.autocast is None:
            return self._beliefs(x)
        with torch.autocast(x.device.type, self.autocast, cache_enabled=False):
            return self._beliefs(x)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles as any module does; the hooks stay from now on, as the compiler cannot follow their changes."""
        if not self._hooks_stay:
            self._hooks_stay, self._staying = True, self._add_hooks()
        super().compile(*args, **kwargs)

    def release(self) -> None:
        """Removes the hooks that `compile` has left on the network; this object must not be called any more."""
        for handle in self._staying:
            handle.remove()

    def _beliefs(self, x: Tensor) -> Beliefs:
        # Hooks live for this call only, so that the network itself stays exportable and picklable.
        handles = [] if self._hooks_stay else self._add_hooks()
        self._asked = True
        try:
            logits = self.network(x)
        finally:
            self._asked = False
            for handle in handles:
                handle.remove()
        features = self._seen.pop(-1, None)
        activations = tuple(self._seen.pop(place) for place in range(len(self.layers)))
        return Beliefs(_precise(logits), activations, None if features is None else _precise(features))

    def _add_hooks(self) -> list[RemovableHandle]:
        # By name, because synchronised batch norms may have replaced the layers.
        tapped = [self.network.get_submodule(name) for name in self.layers]
        handles = [module.register_forward_hook(partial(self._keep_output, n)) for n, module in enumerate(tapped)]
        return handles + [module.register_forward_pre_hook(self._keep_input) for module in self._classifier]

    def _keep_output(self, place: int, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        if self._asked:  # else: the network was called directly
            self._seen[place] = output

    def _keep_input(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._asked:
            self._seen[-1] = inputs[0]


def _precise(x: Tensor) -> Tensor:
    """At least float32: with the eight bits of a bfloat16 mantissa a sum over a batch is wrong by some per cent."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
