"""Reading activations inside any network by layer name."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Beliefs(NamedTuple):
    """What a network thinks of a batch."""

    logits: Tensor
    """[B, classes]"""
    activations: tuple[Tensor, ...]
    """One [B, C_l, H_l, W_l] for each tapped layer, in the order asked for."""
    features: Tensor | None = None
    """What the last linear layer reads, [B, F], where it was asked for."""


class TappedNetwork(nn.Module):
    """Wraps a network so that a forward pass also returns the outputs of some of its layers.

    Args:
        network: Maps images [B, C, H, W] to logits [B, classes]; it is not changed.
        layers: Names as in `network.named_modules()`.
        features: Whether the input of the last linear layer is read too.

    Raises:
        ValueError: the network has no layer of that name, or no linear layer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = (), *, features: bool = False) -> None:
        super().__init__()
        self.network = network
        self.training = network.training  # a frozen teacher stays in eval mode
        modules = dict(network.named_modules())
        unknown = [name for name in layers if name not in modules]
        if unknown:
            raise ValueError(f"no layer named {unknown[0]!r}; there are: {', '.join(name for name in modules if name)}")
        self._tapped = tuple(modules[name] for name in layers)
        linear = [module for module in modules.values() if isinstance(module, nn.Linear)]
        if features and not linear:
            raise ValueError("no linear layer whose input could be read")
        self._classifier = (linear[-1],) if features else ()  # in a tuple: not a submodule of its own

    def forward(self, x: Tensor) -> Beliefs:
        """[B, C, H, W] -> logits and tapped activations."""
        seen: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, _: object, output: Tensor) -> None:
            seen[module] = output

        read: list[Tensor] = []

        def keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read.append(inputs[0])

        # Hooks live for this call only, so that the network itself stays exportable and picklable.
        handles: list[RemovableHandle] = [module.register_forward_hook(keep) for module in self._tapped]
        handles += [module.register_forward_pre_hook(keep_input) for module in self._classifier]
        try:
            logits = self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        return Beliefs(logits, tuple(seen[module] for module in self._tapped), read[-1] if read else None)
