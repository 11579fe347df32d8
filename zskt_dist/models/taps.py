"""Reading activations inside any network by layer name."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Beliefs(NamedTuple):
    """What a network thinks of a batch."""

    logits: Tensor
    """[B, classes]"""
    activations: tuple[Tensor, ...]
    """One [B, C_l, H_l, W_l] for each tapped layer, in the order asked for."""
    features: Tensor | None = None
    """What the last linear layer reads, [B, F], where it was asked for; as precise as the logits."""


class TappedNetwork(nn.Module):
    """Wraps a network so that a forward pass also returns the outputs of some of its layers.

    Args:
        network: Maps images [B, C, H, W] to logits [B, classes]; it is not changed.
        layers: Names as in `network.named_modules()`.
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
        """As of any module; from now on the hooks stay, for the compiler cannot follow their coming and going."""
        if not self._hooks_stay:
            self._hooks_stay, self._staying = True, self._add_hooks()
        super().compile(*args, **kwargs)

    def release(self) -> None:
        """Takes off the network what `compile` has left on it; it is not asked through this object any more."""
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
        # By name, for batch norms may have been replaced by synchronised ones.
        tapped = [self.network.get_submodule(name) for name in self.layers]
        handles = [module.register_forward_hook(partial(self._keep_output, n)) for n, module in enumerate(tapped)]
        return handles + [module.register_forward_pre_hook(self._keep_input) for module in self._classifier]

    def _keep_output(self, place: int, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        if self._asked:  # and not the network itself, by somebody else
            self._seen[place] = output

    def _keep_input(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._asked:
            self._seen[-1] = inputs[0]


def _precise(x: Tensor) -> Tensor:
    """At least float32: with the eight bits of a bfloat16 mantissa a sum over a batch is wrong by per cents."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
