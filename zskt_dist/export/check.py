"""Is it still the same network? An exported one beside the original in PyTorch, on random images."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError, one_line
from zskt_dist.evaluation.scorer import Scorer
from zskt_dist.export.exported_network import Deployed
from zskt_dist.models import ImageShape

Classifier = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] to logits [B, K]."""

BATCH_SIZES = (1, 2, 7)
"""One alone often shows a batch size that has been frozen into a program."""
LARGE = 100.0
"""Factor of the images of large magnitude."""
AT_A_TIME = 32
"""Images in a batch where there are many, so that large ones fit into memory."""


class Difference(NamedTuple):
    """Of logits, the largest over all images.

    Attributes:
        ordinary: On images as they occur, absolute.
        large: On `LARGE` times those images, as a share of the largest logit of the batch (or of 1): there,
            logits are so large that float32 itself rounds them by more than any tolerance.
    """

    ordinary: float
    large: float

    def within(self, tolerance: float) -> bool:
        """False also where a difference is not a number."""
        return self.ordinary <= tolerance and self.large <= tolerance


def compare(deployed: Deployed, other: Classifier, image_shape: ImageShape) -> Difference:
    """How far `other` is from `deployed`.

    Raises:
        UserError: `other` does not take a batch size, or answers in another shape.
    """
    rng = torch.Generator().manual_seed(0)
    gaps: dict[float, list[Tensor]] = {1.0: [], LARGE: []}
    with torch.no_grad():
        for size in BATCH_SIZES:
            images = deployed.from_normalised(torch.randn(size, *image_shape, generator=rng))
            for factor, found in gaps.items():
                expected = deployed(factor * images)
                scale = expected.abs().amax().clamp(min=1) if factor == LARGE else 1.0
                found.append(_gap(expected, _answer(other, factor * images)) / scale)
    ordinary, large = (float(torch.stack(found).amax()) for found in gaps.values())
    return Difference(ordinary, large)


def agreement(deployed: Deployed, other: Classifier, batches: Iterable[Tensor]) -> float | None:
    """Share of the images that both put into the same class; None without images.

    Args:
        batches: Normalised images [B, C, H, W]; `AT_A_TIME` of them are asked about at once.
    """
    scorer = Scorer(World(torch.device("cpu")))
    for images in batches:
        for part in deployed.from_normalised(images).split(AT_A_TIME):
            scorer.add(other(part), deployed(part))
    score = scorer.score()
    return score.accuracy if score.images else None


def _answer(other: Classifier, images: Tensor) -> Tensor:
    try:
        return other(images)
    except Exception as error:  # of whatever runtime it is
        raise UserError(f"fails on a batch of {len(images)} ({one_line(error)})") from error


def _gap(expected: Tensor, answer: Tensor) -> Tensor:
    if answer.shape != expected.shape:
        raise UserError(f"answers {tuple(answer.shape)} where the network answers {tuple(expected.shape)}")
    return (expected - answer).abs().masked_fill(expected == answer, 0).amax()  # infinities may be equal too
