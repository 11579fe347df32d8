"""Mean curves and their standard errors, from running sums over parts of a table."""

import numpy as np
import pyarrow as pa
import pytest

from zskt_dist.evaluation.curves import SCHEMA, CurveSummary


def _summary(p: np.ndarray, *parts: int) -> CurveSummary:
    """Of p [N, T, K] for both networks, added in parts that end after so many images."""
    images, targets, steps = p.shape
    columns = [
        np.repeat(np.arange(images), targets * steps),
        np.zeros(p.size),
        np.tile(np.repeat(np.arange(targets), steps), images),
        np.tile(np.arange(steps), images * targets),
        p.ravel(),
        p.ravel(),
    ]
    table = pa.table([pa.array(c).cast(f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    summary = CurveSummary(steps)
    for start, end in zip((0, *parts), (*parts, images), strict=True):
        summary.add(table.slice(start * targets * steps, (end - start) * targets * steps))
    return summary


def test_the_curves_of_an_image_count_as_one() -> None:
    p = np.array([[[0.0], [0.2]], [[0.4], [0.6]], [[0.8], [1.0]]])  # [N = 3, T = 2, K = 1]
    means = _summary(p).mean_curves()
    assert means["p_a"] == pytest.approx([0.5])
    assert means["p_a_standard_error"] == pytest.approx([0.4 / 3**0.5]), "image means 0.1, 0.5, 0.9: ddof = 1"
    repeated = _summary(np.repeat(p, 5, axis=1)).mean_curves()
    assert repeated["p_b_standard_error"] == pytest.approx([0.4 / 3**0.5]), "more targets of an image are not news"


def test_parts_add_up_to_numpys_mean_and_deviation() -> None:
    p = np.random.default_rng(0).random((4, 3, 2)).astype(np.float32).astype(np.float64)
    means, of_images = _summary(p, 2).mean_curves(), p.mean(axis=1)
    assert means["p_b"] == pytest.approx(of_images.mean(axis=0))
    assert means["p_b_standard_error"] == pytest.approx(of_images.std(axis=0, ddof=1) / 2)
