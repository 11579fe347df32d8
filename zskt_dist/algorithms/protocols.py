"""What an algorithm asks of whatever trains its networks; `zskt_dist.engine` provides it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn

from zskt_dist.models import Beliefs


class Trained(Protocol):
    """One network together with its optimizer."""

    @property
    def raw(self) -> nn.Module:
        """The network without any distribution around it."""

    @property
    def learning_rate(self) -> float: ...

    def frozen(self, *, statistics: bool = True) -> AbstractContextManager[nn.Module]:
        """The raw network with parameters that take no gradient.

        Args:
            statistics: Whether running batch-norm statistics still move.
        """

    def step(self, loss: Tensor) -> Tensor:
        """One update from a scalar loss; returns the total gradient norm before clipping."""

    def decay(self) -> None:
        """Moves the learning-rate schedule on by one iteration."""


class TrainedGenerator(Trained, Protocol):
    def __call__(self, z: Tensor, /) -> Tensor:
        """[B, z_dim] -> images [B, C, H, W]."""


class TrainedClassifier(Trained, Protocol):
    def __call__(self, x: Tensor, /) -> Beliefs:
        """[B, C, H, W] -> logits and tapped activations."""


Classifier = Callable[[Tensor], Beliefs]
"""A network that is only asked, never trained."""

Metrics = dict[str, Tensor]
"""Detached tensors on the device; the mean over workers is the value of the global batch."""
