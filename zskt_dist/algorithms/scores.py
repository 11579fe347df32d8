"""Counts predictions as sums over images, so that parts of a data set can be added up.

Shapes: B images, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 15
"""Number of bins of confidence in [0, 1], equally wide (Guo et al. 2017, arXiv:1706.04599)."""


def confusion(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """How often class i (row) was predicted as j (column): classes [B] and [B] -> int64 [C, C]."""
    return torch.bincount(truth * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def calibration_sums(logits: Tensor, truth: Tensor) -> Tensor:
    """Per bin of confidence: images, sum of confidences, number of hits; float64 [BINS, 3].

    Args:
        logits: [B, C].
        truth: Right classes, int64 [B]: labels, or a teacher's predictions.
    """
    confidence = torch.softmax(logits.double(), dim=1).amax(dim=1)
    hits = (logits.argmax(dim=1) == truth).double()
    place = bin_of(confidence, BINS)
    sums = torch.stack([torch.ones_like(confidence), confidence, hits], dim=1)
    return torch.zeros(BINS, 3, dtype=torch.float64, device=logits.device).index_add_(0, place, sums)


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """Which of `bins` equally wide bins in [0, 1] holds each confidence; an edge belongs to the bin below it."""
    return (torch.ceil(confidence * bins).long() - 1).clamp(0, bins - 1)


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of every image in nats, from the logits [B, C] of both; float64 [B]."""
    log_p, log_q = (torch.log_softmax(logits.double(), dim=1) for logits in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).clamp(min=0)  # rounding may take it below


class Calibration(NamedTuple):
    """How well a network's confidence predicts its accuracy."""

    ece: float
    """Expected calibration error: |accuracy - confidence| averaged over images, bin by bin."""
    bins: list[dict[str, float]]
    """Bins that have images: mean `confidence`, `accuracy`, `count`."""


def calibration(sums: Tensor) -> Calibration:
    """The calibration from `calibration_sums` over the whole data set."""
    counts, confidences, hits = sums.unbind(dim=1)
    ece = ((hits - confidences).abs().sum() / counts.sum()).item()
    filled = [
        {"confidence": (confidence / count).item(), "accuracy": (hit / count).item(), "count": int(count)}
        for count, confidence, hit in zip(counts, confidences, hits, strict=True)
        if count > 0
    ]
    return Calibration(ece, filled)
