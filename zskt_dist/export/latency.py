"""How long a network takes on this machine's CPU."""

import statistics
import time

import torch

from zskt_dist.export.check import Classifier
from zskt_dist.models import ImageShape

BATCH_SIZES = (1, 32)
WARM_UP = 2
"""Calls before the first that counts."""
_FEWEST, _MOST, _SECONDS = 5, 50, 0.5


def latency_ms(network: Classifier, image_shape: ImageShape) -> dict[str, float]:
    """Median milliseconds of a forward pass by batch size, of 5 to 50 calls in about half a second."""
    return {str(size): round(_median_ms(network, torch.zeros(size, *image_shape)), 3) for size in BATCH_SIZES}


@torch.no_grad()
def _median_ms(network: Classifier, images: torch.Tensor) -> float:
    for _ in range(WARM_UP):
        network(images)
    taken: list[float] = []
    while len(taken) < _FEWEST or (len(taken) < _MOST and sum(taken) < _SECONDS):
        started = time.perf_counter()
        network(images)
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)
