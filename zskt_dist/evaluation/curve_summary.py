"""What transition curves say in the mean. Needs torch alone, as the Python API does."""

from typing import Any

import torch
from torch import Tensor

from zskt_dist.algorithms.transitions import transition_error
from zskt_dist.config import Config


class CurveSummary:
    """Mean curves with their standard errors (Figure 4) and the MTE (Eq. 2), from running sums."""

    def __init__(self, steps: int) -> None:
        self.steps, self.images = steps, 0
        self._sums = torch.zeros(2, 2, steps, dtype=torch.float64)  # of the means over targets and of their squares
        self._error = 0.0

    def add_curves(self, p_a: Tensor, p_b: Tensor) -> None:
        """All curves of some images, p_j of A and of B, each [B, C - 1, K]."""
        p = torch.stack([p_a, p_b]).double().cpu()
        # The curves of one image are not independent: the spread is that of the images' means.
        of_images = p.mean(dim=2)
        self._sums += torch.stack([of_images.sum(dim=1), of_images.square().sum(dim=1)])
        self._error += transition_error(*p).sum().item()
        self.images += len(p_a)

    @property
    def mte(self) -> float | None:
        return self._error / self.images if self.images else None

    def mean_curves(self) -> dict[str, list[float]]:
        """`p_a`, `p_b` and the standard errors of these means over images, one value per step."""
        if not self.images:
            return {}
        mean, squares = self._sums / self.images
        variance = (squares - mean.square()).clamp(min=0)
        error = (variance / max(1, self.images - 1)).sqrt()  # ddof = 1: variance * N / (N - 1), over N images
        values = torch.stack([mean, error], dim=1).flatten(end_dim=1).tolist()
        return dict(zip(("p_a", "p_a_standard_error", "p_b", "p_b_standard_error"), values, strict=True))


def describe_mte(config: Config, summary: CurveSummary, dataset: str, images_per_class: int | None) -> dict[str, Any]:
    """The MTE with everything it depends on (section 4.4: "must be reported clearly")."""
    settings = config.transitions
    return {
        "value": summary.mte,
        "dataset": dataset,
        "steps": settings.steps,
        "step_size": settings.step_size,
        "images": summary.images,
        "stepped": settings.stepped,
        "skip": settings.skip,
        "images_per_class": images_per_class,
    }
