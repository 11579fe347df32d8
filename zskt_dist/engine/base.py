"""What all engines share: a module, its optimizer and its schedule."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

State = dict[str, Any]


class Engine(ABC):
    """Trains `network` with `optimizer`; gradients are averaged over the workers of the default group.

    Args:
        network: On its device already, equal on all workers.
        optimizer: Over the parameters of `network`.
        schedule: Learning-rate factor of an iteration; 1 keeps the optimizer's own rate.
        clip_norm: Largest total norm of the averaged gradient; 0 does not clip.
        weight: Weight of this worker's loss in the average over the workers; 1 for an even slice of the batch.
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
        self.set_decays(0)
        self.clip_norm = clip_norm or float("inf")
        self.weight = weight
        self._parameters = list(network.parameters())

    @abstractmethod
    def __call__(self, x: Tensor) -> Any:
        """The network's output, for a backward pass."""

    def ask(self, x: Tensor) -> Any:
        """The raw network's output; nothing is synchronised."""
        return self.raw(x)

    @abstractmethod
    def whole(self) -> AbstractContextManager[nn.Module]:
        """The network with all its parameters on this worker, not to be trained; all workers enter together."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update, computed here: reading the optimizer's may have to wait for the device."""
        return self._initial_rates[0] * self.schedule(self.decays)

    @contextmanager
    def frozen(self, *, statistics: bool = True) -> Iterator[Callable[[Tensor], Any]]:
        """Yields `ask`; the parameters take no gradient meanwhile."""
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

    @abstractmethod
    def accumulate(self, *parts: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Micro-batches, as `zip` gives them, whose gradients add up to one update."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a scalar loss."""

    def step(self, loss: Tensor) -> Tensor:
        self.backward(loss)
        return self.update()

    @abstractmethod
    def update(self) -> Tensor:
        """Clips and updates; returns the norm of the averaged gradient before clipping."""

    def decay(self) -> None:
        self.set_decays(self.decays + 1)

    def set_decays(self, count: int) -> None:
        """Sets the learning rates to those after so many calls of `decay`."""
        self.decays = count
        for group, initial in zip(self.optimizer.param_groups, self._initial_rates, strict=True):
            rate = initial * self.schedule(count)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @abstractmethod
    def state_dict(self) -> State:
        """The state of training, which every engine reads on any number of workers; all workers call it together.

        It holds `network` and the `state` of `optimizer` in torch's format, for the whole network, and in `scheduler`
        the count of decays. Options and schedule are those of the constructor.
        """

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Restores the `state_dict` of any engine; all workers call it together."""
