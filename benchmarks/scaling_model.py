"""How long an iteration takes on n workers, on paper.

    T(n) = F(b) / rate(b) + sum over the all-reduces of (latency(n) + bytes * 2 (n - 1) / n / bandwidth(n))

b = batch / n. F(b) is proportional to b, and rate(b) = peak * b / (b + b0): small batches leave a device idle. So
F(b) / rate(b) is a line in b, `Compute`. Nothing overlaps: a step's gradients are so few that they travel once the
backward pass is over. Not in it: workers that wait for the slowest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np


@dataclass(frozen=True)
class Compute:
    """Seconds of an iteration of one worker: a fixed part, and one for each of its images."""

    fixed: float
    per_image: float

    def seconds(self, images: float) -> float:
        return self.fixed + self.per_image * images

    @classmethod
    def fitted(cls, seconds: dict[int, float]) -> "Compute":
        """To measured seconds by number of images."""
        return cls(*_line(seconds))


@dataclass(frozen=True)
class Link:
    """Seconds of a message's hop from worker to worker, and bytes per second of each of them."""

    hop: float
    bandwidth: float

    @classmethod
    def fitted(cls, seconds: dict[int, float]) -> "Link":
        """To measured seconds of two workers' all-reduce, by bytes; it takes two hops, and each byte goes once."""
        latency, per_byte = _line(seconds)
        return cls(latency / 2, 1 / per_byte)


@dataclass(frozen=True)
class Cluster:
    """Nodes of `node` workers each, with one link inside a node and another between nodes."""

    inside: Link
    between: Link
    node: int

    def latency(self, n: int) -> float:
        """Up and down a binary tree, whose lower levels lie inside the nodes."""
        levels_inside = log2(min(n, self.node))
        return 2 * (levels_inside * self.inside.hop + (log2(n) - levels_inside) * self.between.hop)

    def bandwidth(self, n: int) -> float:
        """Of the slowest link that takes part."""
        return self.inside.bandwidth if n <= self.node else min(self.inside.bandwidth, self.between.bandwidth)

    def all_reduce(self, n: int, size: int) -> float:
        """Seconds, of `size` bytes."""
        return self.latency(n) + size * 2 * (n - 1) / n / self.bandwidth(n)


@dataclass(frozen=True)
class Setting:
    """How a run is configured.

    Attributes:
        batch: Images of an iteration, over all workers.
        messages: Bytes of every all-reduce in an iteration.
        per_worker: Whether `batch` is each worker's own: the global one grows with them.
    """

    name: str
    compute: Compute
    batch: int
    messages: tuple[int, ...]
    per_worker: bool = False

    def images(self, n: int) -> float:
        """Of one worker."""
        return self.batch if self.per_worker else self.batch / n

    def communication(self, cluster: Cluster, n: int) -> float:
        return sum(cluster.all_reduce(n, size) for size in self.messages)

    def seconds(self, cluster: Cluster, n: int) -> float:
        """T(n)."""
        return self.compute.seconds(self.images(n)) + self.communication(cluster, n)

    def speedup(self, cluster: Cluster, n: int) -> float:
        """Images per second, relative to one worker."""
        work = n if self.per_worker else 1
        return work * self.seconds(cluster, 1) / self.seconds(cluster, n)

    def efficiency(self, cluster: Cluster, n: int) -> float:
        return self.speedup(cluster, n) / n

    def largest(self, cluster: Cluster, efficiency: float, counts: Sequence[int]) -> int:
        """Most workers, of `counts`, that are used at least so well; they have an image each."""
        possible = [n for n in counts if self.images(n) >= 1 and self.efficiency(cluster, n) >= efficiency]
        return max(possible, default=1)


def _line(points: dict[int, float]) -> tuple[float, float]:
    """(Value at 0, slope) of the line with the least relative errors; the value at 0 is no less than 0."""
    x, y = np.array(list(points)), np.array(list(points.values()))
    slope, value = np.polyfit(x, y, 1, w=1 / y)
    if value < 0:
        value, slope = 0.0, (x / y).sum() / (x / y).dot(x / y)
    return float(value), float(slope)
