"""An iteration recorded as one CUDA graph: no Python and no kernel launches between its first and its last kernel."""

import torch
from torch import Tensor

from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.algorithms.transfer import Noise, ZeroShotTransfer

# DDP settles its buckets in its first iterations; torch asks for eleven before it is recorded.
_WARM_UP = 11


class RecordedTransfer:
    """`transfer.step` in ordinary iterations at first, then recorded and from there on replayed.

    The optimizers must be `capturable`, with learning rates in tensors. The metrics are overwritten by the next step.
    """

    def __init__(self, transfer: ZeroShotTransfer, *, warm_up: int = _WARM_UP) -> None:
        self._transfer, self._warm_up = transfer, warm_up
        self._inputs = _Inputs()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._metrics: Metrics = {}
        self._stream = torch.cuda.Stream()

    def step(self, noise: Noise) -> Metrics:
        """As `ZeroShotTransfer.step`."""
        self._inputs.take(noise)
        if self._graph is None and self._warm_up > 0:
            self._warm_up -= 1
            self._learn_aside()
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):  # records, and computes nothing yet
                    self._metrics = self._transfer.learn(self._inputs)
            self._graph.replay()
        self._transfer.decay()
        return self._metrics

    def _learn_aside(self) -> None:
        """On a stream of its own, as recording does: autograd remembers where gradients were first accumulated."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._metrics = self._transfer.learn(self._inputs)
        torch.cuda.current_stream().wait_stream(self._stream)


class _Inputs:
    """Noise at addresses that stay, for a graph reads where it was recorded to read."""

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
