"""Divergences as users write them, right and wrong: `tests.support.user_divergences:NAME`."""

import torch
from torch import Tensor
from torch.nn import functional


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of each image, [n]."""
    log_p, log_q = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def mean_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return forward_kl(student, teacher).mean()


def squared(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over images and classes, a scalar."""
    return functional.mse_loss(student, teacher)


def total(student: Tensor, teacher: Tensor) -> Tensor:
    return forward_kl(student, teacher).sum()


def of_the_batch(student: Tensor, teacher: Tensor) -> Tensor:
    """Values that depend on the other images."""
    return ((student - student.mean(dim=0)) - teacher).square().sum(dim=1)


def number(student: Tensor, teacher: Tensor) -> float:
    return mean_kl(student, teacher).item()


def detached(student: Tensor, teacher: Tensor) -> Tensor:
    return mean_kl(student.detach(), teacher)


def of_the_teacher_alone(student: Tensor, teacher: Tensor) -> Tensor:
    return teacher.square().sum(dim=1) + (student * 0).sum(dim=1)


def of_each_class(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square()


def column(student: Tensor, teacher: Tensor) -> Tensor:
    return forward_kl(student, teacher)[:, None]


def underflowing(student: Tensor, teacher: Tensor) -> Tensor:
    """The logarithm of a probability that is rounded to zero."""
    p, q = (10 * teacher).softmax(dim=1), (10 * student).softmax(dim=1)
    return (p * (p.log() - q.log())).sum(dim=1)


def of_seven_classes(student: Tensor, teacher: Tensor) -> Tensor:
    return forward_kl(student * torch.ones(7), teacher)


def labels(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.argmax(dim=1) != teacher.argmax(dim=1)).long()


NOT_A_FUNCTION = 3
