"""An iteration recorded as one CUDA graph: no Python and no kernel launches between its first and its last kernel."""

import gc
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zskt_dist.algorithms.belief_matching import BeliefMatching, Noise
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.errors import ConfigError

log = logging.getLogger(__name__)

# The first iteration makes gradients and the optimizer's state and sets up cuDNN; the second one uses them.
_WARM_UP = 3


class Supervised(Protocol):
    """A supervised algorithm: a step is `learn`, then `decay`."""

    def learn(self, x: Tensor, label: Tensor, /) -> Metrics: ...

    def decay(self) -> None: ...


class RecordedTransfer:
    """Runs `transfer.step` in ordinary iterations at first, then records one and replays it from then on.

    The optimizers must be `capturable`, with learning rates in tensors. The metrics are overwritten by the next step.

    Args:
        required: True if it is an error that an iteration cannot be recorded; otherwise all stay ordinary then.
    """

    def __init__(self, transfer: BeliefMatching, *, required: bool = False, warm_up: int = _WARM_UP) -> None:
        self._transfer = transfer
        self._inputs = _Inputs()
        self._recorded = _Recorded(lambda: transfer.learn(self._inputs), required, warm_up)

    @property
    def works(self) -> bool:
        """False once an iteration could not be recorded."""
        return self._recorded.works

    def step(self, noise: Noise) -> Metrics:
        """One iteration, as `BeliefMatching.step` computes it."""
        self._inputs.take(noise)
        metrics = self._recorded()
        self._transfer.decay()
        return metrics


class RecordedTraining:
    """Records and replays a supervised step in the same way; all batches have one shape."""

    def __init__(self, training: Supervised, *, required: bool = False, warm_up: int = _WARM_UP) -> None:
        self._training = training
        self._batch: tuple[Tensor, Tensor] | None = None
        self._recorded = _Recorded(self._learn, required, warm_up)

    @property
    def works(self) -> bool:
        """False once a step could not be recorded."""
        return self._recorded.works

    def step(self, x: Tensor, label: Tensor) -> Metrics:
        """x: [B, C, H, W]; label: [B]."""
        if self._batch is None:
            self._batch = x.clone(), label.clone()
        for place, value in zip(self._batch, (x, label), strict=True):
            place.copy_(value)
        metrics = self._recorded()
        self._training.decay()
        return metrics

    def _learn(self) -> Metrics:
        assert self._batch is not None
        return self._training.learn(*self._batch)


class _Recorded:
    """A function of tensors at fixed addresses: called `warm_up` times, then recorded and replayed.

    Raises:
        ConfigError: it is `required` and cannot be recorded.
    """

    def __init__(self, learn: Callable[[], Metrics], required: bool, warm_up: int) -> None:
        assert warm_up > 0, "what is made on the way has to be there before it is recorded"
        self._learn, self._required, self._warm_up = learn, required, warm_up
        self._graph: torch.cuda.CUDAGraph | None = None
        self._metrics: Metrics = {}
        self._stream = torch.cuda.Stream()
        self.works = True

    def __call__(self) -> Metrics:
        if self._warm_up > 0:
            self._warm_up -= 1
        elif self.works and self._graph is None:
            self._graph = self._try_to_record()
        if self._graph is None:
            self._learn_aside()
        else:
            self._graph.replay()
        return self._metrics

    def _learn_aside(self) -> None:
        """Learns on the stream that will record: autograd remembers where gradients were first accumulated."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._metrics = self._learn()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _try_to_record(self) -> torch.cuda.CUDAGraph | None:
        """The recording; None where an operation cannot be recorded, such as one that waits for the device."""
        before = _drawn_on_the_host()
        try:
            graph = self._record()
            if _drawn_on_the_host() != before:  # as to skip layers in Python: each replay would skip the same ones
                raise RuntimeError("it draws random numbers on the host")
            return graph
        except RuntimeError as error:
            _forget_recording()
            # Where an operation is refused, the end of the recording fails too, with a less helpful error.
            reason = str(error.__context__ or error).partition("\n")[0]
        problem = f"cannot record an iteration as a CUDA graph ({reason})"
        if self._required:
            raise ConfigError("speed.cuda_graphs", True, f"{problem}; use false")
        log.warning("%s: iterations are computed one operation at a time", problem)
        self.works = False
        return None

    def _record(self) -> torch.cuda.CUDAGraph:
        """Records one call; this computes nothing yet."""
        graph = torch.cuda.CUDAGraph()
        # The outer context restores the stream even if the end of the recording fails.
        with _no_collection(), torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
            self._metrics = self._learn()
        return graph


def _drawn_on_the_host() -> tuple[object, ...]:
    """The state of the host's random generators; it changes when Python, NumPy or torch draws from one."""
    return str(np.random.get_state()), random.getstate(), torch.get_rng_state().tolist()


def _forget_recording() -> None:
    """Frees the device's generator, which an aborted recording still holds, so that others can draw from it."""
    if torch.cuda.is_available():
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())


@contextmanager
def _no_collection() -> Iterator[None]:
    """Stops garbage collection: it could destroy an older graph and so spoil the recording."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Inputs:
    """Noise at fixed addresses: a graph always reads from the addresses of its recording."""

    def __init__(self) -> None:
        self._now: Noise | None = None
        self._z: dict[int, Tensor] = {}
        self._image: dict[int, Tensor] = {}

    def take(self, noise: Noise) -> None:
        """Copies the noise of an iteration to where earlier ones were read."""
        self._now = noise
        for draw, z in self._z.items():
            z.copy_(noise(draw), non_blocking=True)
        for draw, image in self._image.items():
            image.copy_(noise.like(image, draw), non_blocking=True)

    def __call__(self, draw: int) -> Tensor:
        if draw not in self._z:
            assert self._now is not None
            self._z[draw] = self._now(draw).clone()
        return self._z[draw]

    def like(self, x: Tensor, draw: int) -> Tensor:
        if draw not in self._image:
            assert self._now is not None
            self._image[draw] = self._now.like(x, draw).clone()
        return self._image[draw]


def rate_on(device: torch.device, learning_rate: float) -> Tensor:
    """A learning rate that a recorded step reads from the device; float32, as fused optimizers expect it."""
    return torch.tensor(learning_rate, dtype=torch.float32, device=device)
