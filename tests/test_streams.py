import itertools

import numpy as np
import pytest
import torch

from zskt_dist.distributed.world import World
from zskt_dist.streams import Purpose, normal, stream


def _draw(*identity: int, count: int = 64) -> list[int]:
    seed, purpose, *counters = identity
    return stream(seed, Purpose(purpose), *counters).integers(2**63, size=count).tolist()


def test_same_counters_same_numbers() -> None:
    assert _draw(3, Purpose.NOISE, 5, 1) == _draw(3, Purpose.NOISE, 5, 1)


def test_numbers_do_not_depend_on_what_was_drawn_before() -> None:
    before = _draw(0, Purpose.ORDER, 9)
    np.random.seed(4)
    torch.manual_seed(4)
    _draw(0, Purpose.ORDER, 8, count=1000)
    assert _draw(0, Purpose.ORDER, 9) == before


def test_streams_never_share_a_number() -> None:
    """Neighbouring seeds, purposes, iterations and draws: with 63 bits, one repetition would be no accident."""
    identities = list(itertools.product(range(2), Purpose, range(4), range(4), range(2)))
    drawn = [number for identity in identities for number in _draw(*identity)]
    assert len(set(drawn)) == len(drawn) == 2 * len(Purpose) * 4 * 4 * 2 * 64


def test_missing_counters_are_zeros() -> None:
    assert _draw(1, Purpose.FIGURES) == _draw(1, Purpose.FIGURES, 0, 0, 0)
    assert _draw(1, Purpose.NOISE, 2) == _draw(1, Purpose.NOISE, 2, 0)


def test_purposes_keep_their_numbers() -> None:
    """They are part of what a run is: renumbering them would change every published result."""
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "INITIALISATION": 0,
        "NOISE": 1,
        "ORDER": 2,
        "AUGMENTATION": 3,
        "FIGURES": 4,
        "SUBSET": 5,
        "UNIFORM_NOISE": 6,
        "IMAGE_NOISE": 7,
        "HELD_OUT": 8,
        "LAYERS": 9,
        "PSEUDO_DATA": 10,
        "SYNTHESIS": 11,
        "POOL": 12,
        "YARDSTICK": 13,
    }


def test_large_seeds_and_iterations() -> None:
    assert _draw(2**63, Purpose.NOISE, 2**40) != _draw(2**63, Purpose.NOISE, 2**40 + 1)
    assert _draw(2**63, Purpose.NOISE, 1) != _draw(2**63 + 1, Purpose.NOISE, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
def test_slices_of_all_workers_are_the_global_draw(size: int) -> None:
    def drawn() -> np.ndarray:
        return normal(stream(0, Purpose.NOISE, 7, 2), 12, 5)

    parts = [drawn()[World(torch.device("cpu"), rank, size).part(12)] for rank in range(size)]
    assert all(len(part) == 12 // size for part in parts)
    assert np.array_equal(np.concatenate(parts), drawn())


def test_normal_moments() -> None:
    """n = 200,000: standard errors of mean, variance and fourth moment are 0.0022, 0.0032 and 0.022."""
    numbers = normal(stream(0, Purpose.NOISE, 3), 2000, 100)
    assert numbers.dtype == np.float32
    assert numbers.shape == (2000, 100)
    values = numbers.astype(np.float64)
    assert abs(values.mean()) < 0.009
    assert abs(values.var() - 1) < 0.013
    assert abs((values**4).mean() - 3) < 0.09


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, Purpose.NOISE, 3), (0, Purpose.NOISE, 4)),
        ((0, Purpose.NOISE, 3, 0), (0, Purpose.NOISE, 3, 1)),
        ((0, Purpose.NOISE, 3, 1), (0, Purpose.NOISE, 1, 3)),
        ((0, Purpose.NOISE, 3), (1, Purpose.NOISE, 3)),
        ((0, Purpose.NOISE), (0, Purpose.FIGURES)),
    ],
)
def test_streams_are_uncorrelated(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """The correlation of 100,000 pairs has a standard error of 0.0032; shifted by one place as well."""
    a, b = (normal(stream(i[0], Purpose(i[1]), *i[2:]), 100_000).astype(np.float64) for i in (one, other))
    for x, y in ((a, b), (a[1:], b[:-1]), (a[:-1], b[1:])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.015
