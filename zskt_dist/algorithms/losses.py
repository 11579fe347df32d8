"""Belief gaps and the attention gap.

Shapes: B batch, C classes; activations [B, channels, H, W]. Every function returns a scalar.
"""

from collections.abc import Callable, Sequence
from math import log
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]
OURS: tuple[Divergence, ...] = get_args(Divergence)
Reduction = Literal["mean", "batchmean"]
BeliefGap = Callable[[Tensor, Tensor], Tensor]
"""(student logits [B, C], teacher logits [B, C]) -> scalar"""


def kl_divergence(log_p: Tensor, log_q: Tensor, reduction: Reduction = "mean") -> Tensor:
    """KL(p || q) = sum_i p_i (log p_i - log q_i) of log-probabilities [B, C] (paper, section 3.1).

    `batchmean` is the mean over the batch; `mean` also divides by C, as the authors' code does.
    """
    # Written out because torch's `mean` is about to change its meaning (a warning in kl_div says so).
    pointwise = log_p.exp() * (log_p - log_q)
    return pointwise.mean() if reduction == "mean" else pointwise.sum() / len(pointwise)


def distillation_gap(temperature: float) -> BeliefGap:
    """T^2 KL(teacher || student) at temperature T, mean over images (Hinton et al. 2015, section 2).

    So its gradients are about as large for every T.
    """
    gap = belief_gap(temperature=temperature, reduction="batchmean")
    return lambda student, teacher: temperature**2 * gap(student, teacher)


def belief_gap(
    divergence: Divergence = "forward_kl",
    *,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> BeliefGap:
    """The divergence between a student's and a teacher's predictions, as a function of their logits.

    `forward_kl` is KL(teacher || student), the paper's loss; `reverse_kl` is KL(student || teacher);
    `jensen_shannon` is the mean of both against the mixture (section 3.2). Logits are divided by
    `temperature`; the result is not multiplied by its square.
    """

    def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
        return kl_divergence(teacher, student, reduction)

    def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
        return kl_divergence(student, teacher, reduction)

    def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
        mixture = torch.logaddexp(student, teacher) - log(2.0)
        return (kl_divergence(teacher, mixture, reduction) + kl_divergence(student, mixture, reduction)) / 2

    gap = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jensen_shannon": jensen_shannon}[divergence]

    def of_logits(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return gap(
            functional.log_softmax(student_logits / temperature, dim=1),
            functional.log_softmax(teacher_logits / temperature, dim=1),
        )

    return of_logits


def attention_map(activation: Tensor) -> Tensor:
    """Spatial attention f(A) = mean over channels of a_c^2, L2-normalised: [B, C, H, W] -> [B, H, W] (section 3.2)."""
    if activation.dtype in (torch.bfloat16, torch.float16):
        activation = activation.float()  # squares of small activations would vanish
    return _normalised(activation.square().mean(dim=1))


def attention_gap(
    student: Sequence[Tensor], teacher_maps: Sequence[Tensor], form: Literal["squared_mean", "l2"] = "squared_mean"
) -> Tensor:
    """Sum over layers of the distance between attention maps (Eq. 1).

    Args:
        student: Activations, one [B, C_l, H_l, W_l] per layer.
        teacher_maps: `attention_map`s of the teacher, one [B, H, W] per layer. Where sizes differ, maps are compared at
            the smaller one.
        form: `squared_mean`, the mean of squared differences (authors' code), or `l2`, the
            2-norm per image, averaged over the batch (Eq. 1 as printed).
    """
    total = student[0].new_zeros(())
    for activation, target in zip(student, teacher_maps, strict=True):
        mine = attention_map(activation)
        if mine.shape != target.shape:
            mine, target = at_smaller_size(mine, target)
        difference = (mine - target).flatten(1)
        if form == "squared_mean":
            total = total + difference.square().mean()
        else:
            total = total + torch.linalg.vector_norm(difference, dim=1).mean()
    return total


def at_smaller_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Attention maps [B, H, W] and [B, H', W'], both as [B, min(H, H'), min(W, W')] and normalised again.

    A pixel becomes the mean of all those it covers, so no part of the larger map is passed over, as interpolation would
    where it shrinks to less than half. The result is f(A) of larger pixels.
    """
    size = min(first.shape[1], second.shape[1]), min(first.shape[2], second.shape[2])
    first, second = (_normalised(functional.adaptive_avg_pool2d(maps, size)) for maps in (first, second))
    return first, second


def _normalised(maps: Tensor) -> Tensor:
    """[B, H, W], each of unit length."""
    return functional.normalize(maps.flatten(1), dim=1).view_as(maps)
