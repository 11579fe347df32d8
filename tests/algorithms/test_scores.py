"""Counts against scikit-learn and hand arithmetic."""

import pytest
import torch
from sklearn.metrics import confusion_matrix

from zskt_dist.algorithms.scores import BINS, calibration, calibration_sums, confusion


def test_confusion_is_that_of_scikit_learn() -> None:
    torch.manual_seed(0)
    truth, predicted = torch.randint(7, (200,)), torch.randint(6, (200,))
    assert confusion(truth, predicted, 7).tolist() == confusion_matrix(truth, predicted, labels=range(7)).tolist()


def _logits(confidences: list[float]) -> torch.Tensor:
    """Two classes; the first one is predicted with the given probability."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def test_calibration_by_hand() -> None:
    """Two bins: (0.6, 0.667] with 0.62 and 0.66, one right; (0.933, 1] with 0.95, right."""
    sums = calibration_sums(_logits([0.62, 0.66, 0.95]), torch.tensor([0, 1, 0]))
    assert sums[9].tolist() == pytest.approx([2, 1.28, 1])
    assert sums[BINS - 1].tolist() == pytest.approx([1, 0.95, 1])
    assert sums.sum().item() == pytest.approx(3 + 2.23 + 2)
    result = calibration(sums)
    assert result.ece == pytest.approx((abs(1 - 1.28) + abs(1 - 0.95)) / 3)
    assert result.bins[0] == pytest.approx({"confidence": 0.64, "accuracy": 0.5, "count": 2})


def test_parts_of_a_data_set_add_up_and_a_perfect_forecaster_has_no_error() -> None:
    torch.manual_seed(0)
    p = torch.rand(20_000, dtype=torch.float64) * 0.5 + 0.5
    logits, truth = _logits(p.tolist()), (torch.rand(20_000) > p).long()
    whole = calibration_sums(logits, truth)
    parts = calibration_sums(logits[:7_000], truth[:7_000]) + calibration_sums(logits[7_000:], truth[7_000:])
    torch.testing.assert_close(parts, whole)
    assert calibration(whole).ece < 0.02
    assert calibration(calibration_sums(logits, 1 - truth)).ece > 0.4
