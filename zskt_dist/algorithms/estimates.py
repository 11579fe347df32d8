"""Compares a student with its teacher on images without labels.

Shapes: B images of a batch, N of all, C classes.
"""

from collections.abc import Iterable
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zskt_dist.algorithms.scores import bin_of, kl_divergence

BINS = 20
"""Number of bins of confidence in [0, 1], equally wide."""
PERCENTILES = (5, 25, 50, 75, 95)


class Comparison(NamedTuple):
    """Comparison of teacher and student for every image; all [N]."""

    agreed: Tensor
    """bool: both predict the same class."""
    kl: Tensor
    """float64: KL(teacher || student) in nats."""
    teacher_confidence: Tensor
    """float64: the teacher's top probability; the student's follows."""
    student_confidence: Tensor
    teacher_class: Tensor
    """int64: the class that the teacher predicts; the student's follows."""
    student_class: Tensor

    def cpu(self) -> "Comparison":
        return Comparison(*(values.cpu() for values in self))


def compare(student: Tensor, teacher: Tensor) -> Comparison:
    """The comparison from the logits [B, C] of both."""
    p, q = (torch.log_softmax(logits.double(), dim=1).exp() for logits in (teacher, student))
    teacher_class, student_class = teacher.argmax(dim=1), student.argmax(dim=1)
    return Comparison(
        agreed=teacher_class == student_class,
        kl=kl_divergence(student, teacher),
        teacher_confidence=p.amax(dim=1),
        student_confidence=q.amax(dim=1),
        teacher_class=teacher_class,
        student_class=student_class,
    )


def together(parts: Iterable[Comparison]) -> Comparison:
    """One comparison of the images of all parts."""
    return Comparison(*(torch.cat(values) for values in zip(*parts, strict=True)))


def describe(images: Comparison, num_classes: int) -> dict[str, Any]:
    """Counts, shares and quantiles over N > 0 images, as plain values."""
    count, hits = len(images.agreed), int(images.agreed.sum())
    low, high = wilson_interval(hits, count)
    frequencies = {
        "teacher": _frequencies(images.teacher_class, num_classes),
        "student": _frequencies(images.student_class, num_classes),
    }
    points = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
    quantiles = torch.quantile(images.kl, points.to(images.kl.device)).tolist()
    return {
        "images": count,
        "agreement": hits / count,
        "agreement_low": low,
        "agreement_high": high,
        "chance_agreement": (frequencies["teacher"] * frequencies["student"]).sum().item(),
        "kl_mean": images.kl.mean().item(),
        "kl_quantiles": dict(zip(map(str, PERCENTILES), quantiles, strict=True)),
        "teacher": _describe_network(images.teacher_confidence, frequencies["teacher"]),
        "student": _describe_network(images.student_confidence, frequencies["student"]),
    }


def wilson_interval(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Interval for the probability behind `hits` out of `count` > 0 independent trials (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, scale = hits / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z / scale * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # At the ends the formula gives 0 and 1 up to rounding.
    return (max(0.0, centre - half) if hits else 0.0, min(1.0, centre + half) if hits < count else 1.0)


def _frequencies(classes: Tensor, num_classes: int) -> Tensor:
    """Share of the images that each class is predicted for; float64 [C]."""
    return torch.bincount(classes, minlength=num_classes).double() / len(classes)


def _describe_network(confidence: Tensor, frequencies: Tensor) -> dict[str, Any]:
    entropy = torch.special.entr(frequencies).sum().item()
    return {
        "confidence_mean": confidence.mean().item(),
        "confidence_counts": torch.bincount(bin_of(confidence, BINS), minlength=BINS).tolist(),
        "classes": int((frequencies > 0).sum()),
        "class_entropy": entropy,
    }
