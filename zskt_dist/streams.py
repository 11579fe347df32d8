"""Counter-based random streams: the numbers depend on (seed, purpose, counters) and on nothing else.

The global batch is drawn on every worker and sliced by rank, so one worker and many see the same
numbers, and a resumed run needs no random state.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """Purpose of the numbers; streams of different purposes are independent."""

    INITIALISATION = 0
    NOISE = 1
    ORDER = 2
    AUGMENTATION = 3
    FIGURES = 4
    SUBSET = 5
    UNIFORM_NOISE = 6
    IMAGE_NOISE = 7
    HELD_OUT = 8
    LAYERS = 9
    """Randomness of layers in training: dropout, stochastic depth."""
    PSEUDO_DATA = 10
    SYNTHESIS = 11
    """Noise and labels of the images that generators of an inversion make."""
    POOL = 12
    """Draws from the pool of an inversion."""
    YARDSTICK = 13


def stream(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    """A generator at the start of the stream numbered by up to three `counters` (Philox 4x64)."""
    words = np.zeros(4, dtype=np.uint64)  # word 0 counts the draws inside the stream
    words[1 : 1 + len(counters)] = counters
    return np.random.Generator(np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64), counter=words))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal float32 numbers."""
    return rng.standard_normal(shape, dtype=np.float32)
