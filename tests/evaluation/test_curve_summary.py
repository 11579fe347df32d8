"""Mean curves and their standard errors, from running sums over parts."""

import numpy as np
import pytest
import torch

from zskt_dist.evaluation.curve_summary import CurveSummary


def _summary(p: np.ndarray, *parts: int) -> CurveSummary:
    """Curves p [N, T, K] of both networks, added in parts that end after so many images."""
    summary = CurveSummary(p.shape[2])
    for part in np.split(p, parts):
        summary.add_curves(torch.from_numpy(part), torch.from_numpy(part))
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
