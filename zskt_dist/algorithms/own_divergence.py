"""A divergence of the user's own: what it has to keep to, and whether it does."""

from collections.abc import Callable

import torch
from torch import Tensor

from zskt_dist.algorithms.losses import BeliefGap
from zskt_dist.models import NetworkError
from zskt_dist.models.construction import describe_error

OwnDivergence = Callable[[Tensor, Tensor], Tensor]
"""(student logits [n, C], teacher logits [n, C]) -> a value for each image [n], or their mean over images"""

_IMAGES = 6
_SCALES = (1.0, 10.0)
"""Standard deviations of the logits that it is tried on: those of networks that are in doubt, and of sure ones."""


def own_gap(divergence: OwnDivergence, temperature: float = 1.0) -> BeliefGap:
    """The mean of a divergence over images, of logits that are divided by the temperature."""

    def gap(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        value = divergence(student_logits / temperature, teacher_logits / temperature)
        return value.mean()  # of a scalar: itself

    return gap


def check_own_divergence(divergence: OwnDivergence, classes: int, device: torch.device) -> None:
    """Tries a divergence on random logits; torch's random state stays as it is.

    Its mean over a batch has to be that of its parts, else the result would depend on the number of workers.

    Raises:
        NetworkError: it fails, or returns something that cannot be trained with.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        for scale in _SCALES:
            drawn = (scale * torch.randn(2, _IMAGES, classes, generator=generator)).to(device)
            student, teacher = drawn[0].requires_grad_(), drawn[1]
            value = _value(divergence, student, teacher)
            if not value.requires_grad:
                raise NetworkError(
                    "returns a value without a gradient to the student's logits; leave out detach and NumPy"
                )
            (gradient,) = torch.autograd.grad(value, student, allow_unused=True)
            if gradient is None or not gradient.any():
                raise NetworkError(
                    "has no gradient to the student's logits, or one of zeros, so nothing could be learnt"
                )
            if not torch.isfinite(value) or not torch.isfinite(gradient).all():
                which = "gradient" if torch.isfinite(value) else "value"
                raise NetworkError(
                    f"has a {which} that is not finite for logits with a deviation of {scale:g}; "
                    "log_softmax and logsumexp are finite where log(softmax) is not"
                )
            _check_mean(divergence, student.detach(), teacher, value.detach())


def _check_mean(divergence: OwnDivergence, student: Tensor, teacher: Tensor, whole: Tensor) -> None:
    first = len(student) // 3  # unequal parts, as workers and micro-batches may have
    parts = [(student[:first], teacher[:first]), (student[first:], teacher[first:])]
    mean = sum(_value(divergence, *part).detach() * len(part[0]) for part in parts) / len(student)
    if not torch.isclose(torch.as_tensor(mean), whole, rtol=1e-3, atol=1e-5):
        raise NetworkError(
            f"is no mean over images: {float(whole):.6g} for {len(student)} of them, and {float(mean):.6g} on average "
            "over parts, so the result would depend on the number of workers; return a value for each image, [n]"
        )


def _value(divergence: OwnDivergence, student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over images; raises NetworkError where it cannot be computed."""
    shape = list(student.shape)
    try:
        value = divergence(student, teacher)
    except Exception as error:  # foreign code may raise anything
        raise NetworkError(f"fails on the logits {shape} of student and teacher: {describe_error(error)}") from None
    if not isinstance(value, Tensor):
        raise NetworkError(
            f"returns {type(value).__name__}; return a tensor, with a value for each image [n] or their mean"
        )
    if value.shape not in ((), (len(student),)):
        problem = f"returns a tensor {list(value.shape)} for logits {shape}"
        raise NetworkError(f"{problem}; return a value for each image, [{len(student)}], or their mean, a scalar")
    if not value.is_floating_point():
        raise NetworkError(f"returns {value.dtype}; return floating-point numbers")
    return value.mean()
