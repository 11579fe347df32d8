"""The interface through which an algorithm trains its networks; `zskt_dist.engine` implements it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from zskt_dist.models import Beliefs

Ask = Callable[[Tensor], Tensor]
"""Images [B, channels, H, W] to logits [B, C]."""


class Trained(Protocol):
    """One network together with its optimizer."""

    @property
    def raw(self) -> nn.Module:
        """The network without any distribution around it."""

    @property
    def learning_rate(self) -> float: ...

    def ask(self, x: Tensor, /) -> Any:
        """The network's output; nothing is synchronised between workers."""

    def frozen(self, *, statistics: bool = True) -> AbstractContextManager[Callable[[Tensor], Any]]:
        """Yields `ask`; the parameters take no gradient meanwhile.

        Args:
            statistics: True if running batch-norm statistics still move.
        """

    def accumulate(self, *parts: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Yields micro-batches as `zip` does; workers exchange gradients once, after the last one."""

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a scalar loss."""

    def update(self) -> Tensor:
        """One optimizer step from the gradients so far; returns their total norm before clipping."""

    def step(self, loss: Tensor) -> Tensor:
        """`backward` and `update`."""

    def decay(self) -> None:
        """Moves the learning-rate schedule on by one iteration."""


class TrainedGenerator(Trained, Protocol):
    def __call__(self, z: Tensor, /) -> Tensor:
        """[B, z_dim] -> images [B, C, H, W]."""


class TrainedClassifier(Trained, Protocol):
    def __call__(self, x: Tensor, /) -> Beliefs:
        """[B, C, H, W] -> logits and tapped activations."""


Classifier = Callable[[Tensor], Beliefs]
"""A network that is never trained, only evaluated."""

Metrics = dict[str, Tensor]
"""Detached tensors on the device; the mean over workers is the value of the global batch."""
