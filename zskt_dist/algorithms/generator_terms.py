"""Extra terms of the generator's loss (Appendix 1 of the paper), which did not help the authors.

Shapes: B images of this worker, C classes, F features.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from zskt_dist.algorithms.losses import kl_divergence
from zskt_dist.algorithms.protocols import Classifier, Metrics
from zskt_dist.models import Beliefs


class GeneratorTerms:
    """Adds the sum of gamma * term to L_G; a term whose gamma is 0 costs nothing.

    Args:
        teacher: Frozen; returns `features` where `diversity` is not 0.
        teacher_entropy: gamma of H(T(x)).
        student_entropy: gamma of H(S(x)).
        consistency: gamma of KL(T(x) || T(A(x))).
        diversity: gamma of the mean cosine between the teacher's features of two images of a micro-batch.
        augmentation: A, additive Gaussian `noise` or Gaussian `blur`.
        strength: Standard deviation of A, in normalised input units (noise) or pixels (blur).
    """

    def __init__(
        self,
        teacher: Classifier,
        *,
        teacher_entropy: float = 0.0,
        student_entropy: float = 0.0,
        consistency: float = 0.0,
        diversity: float = 0.0,
        augmentation: Literal["noise", "blur"] = "noise",
        strength: float = 0.5,
    ) -> None:
        self.teacher = teacher
        self.teacher_entropy, self.student_entropy = teacher_entropy, student_entropy
        self.consistency, self.diversity = consistency, diversity
        self.augmentation, self.strength = augmentation, strength

    @property
    def needs_image_noise(self) -> bool:
        return self.consistency != 0 and self.augmentation == "noise"

    def __call__(self, x: Tensor, belief: Beliefs, guess: Beliefs, noise: Tensor | None) -> tuple[Tensor, Metrics]:
        """The weighted sum, and each term's own value.

        Args:
            x: Pseudo-images [B, channels, H, W].
            belief: The teacher's outputs for x.
            guess: The student's outputs for x.
            noise: Standard normal noise in the shape of x; needed where `needs_image_noise`.
        """
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.teacher_entropy:
            terms["teacher_entropy"] = self.teacher_entropy, entropy(belief.logits)
        if self.student_entropy:
            terms["student_entropy"] = self.student_entropy, entropy(guess.logits)
        if self.consistency:
            again = self.teacher(self._augment(x, noise)).logits
            before, after = (torch.log_softmax(logits, dim=1) for logits in (belief.logits, again))
            terms["consistency"] = self.consistency, kl_divergence(before, after, "batchmean")
        if self.diversity:
            assert belief.features is not None
            terms["diversity"] = self.diversity, mean_cosine(belief.features)
        total = x.new_zeros(()) + sum(gamma * value for gamma, value in terms.values())
        return total, {f"generator_{name}": value.detach() for name, (_, value) in terms.items()}

    def _augment(self, x: Tensor, noise: Tensor | None) -> Tensor:
        if self.augmentation == "blur":
            return gaussian_blur(x, self.strength)
        assert noise is not None
        return x + self.strength * noise


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of predictions: [B, C] -> scalar (Appendix 1.1 and 1.2)."""
    log_p = torch.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1).mean()


def mean_cosine(features: Tensor) -> Tensor:
    """Mean cosine between two different images: [B, F] -> scalar in [-1, 1] (Appendix 1.4).

    The appendix prints `L_G += -phi phi^T` but explains that similar samples are penalised. That needs the
    opposite sign, which is used here. Cosines make the term independent of the scale of the features.
    """
    unit = functional.normalize(features.flatten(1), dim=1)
    count = len(unit)
    return (unit.sum(dim=0).square().sum() - count) / max(1, count * (count - 1))


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Every channel convolved with a Gaussian cut off at 3 sigma, edges continued; shape kept."""
    radius = max(1, round(3 * sigma))
    place = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    weights = torch.softmax(-place.square() / (2 * sigma**2), dim=0)
    channels = x.shape[1]
    padded = functional.pad(x, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
