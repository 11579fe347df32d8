"""Transition curves and the mean transition error: Algorithm 2 and Eq. 2 of Micaelli & Storkey (section 4.4).

Shapes: B images, C classes, K values of a curve; images [B, channels, H, W] in normalised input space.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zskt_dist.models import sharing_weights

Network = Callable[[Tensor], Tensor]
"""Images to logits [B, C], in eval mode, with parameters that take no gradient."""


Walk = tuple[Tensor, Tensor]
"""p_j of A and of B, [rows, K]."""


class Curves(NamedTuple):
    """How the belief in class j grows while images are moved towards it."""

    targets: Tensor
    """j, int64 [B, C - 1]"""
    p_a: Tensor
    """p_j according to the stepped network A, [B, C - 1, K]; the first value is that of the image itself"""
    p_b: Tensor
    """p_j according to the compared network B, [B, C - 1, K]"""


def transition_curves(
    network_a: Network,
    network_b: Network,
    x: Tensor,
    from_class: Tensor,
    *,
    num_classes: int,
    steps: int = 100,
    step_size: float = 1.0,
    rows: int = 128,
) -> Curves:
    """Moves every image towards every other class by gradient steps on A, and records both networks' p_j.

    Args:
        network_a: A, whose decision boundaries are crossed.
        network_b: B, which is only evaluated.
        x: Images on which A and B agree.
        from_class: i, int64 [B]: the class that is not a target: the agreed one, or the label (authors' code).
        steps: K. The value before the first step is recorded, the one after the last is not.
        step_size: xi, in normalised input units.
        rows: Images x targets in forward passes at a time; the result does not depend on it.
    """
    x = x.contiguous(memory_format=torch.channels_last)  # a quarter faster on CPUs than channels first
    classes = torch.arange(num_classes, device=x.device).expand(len(x), num_classes)
    targets = classes[classes != from_class[:, None]].view(len(x), num_classes - 1)
    image = torch.arange(len(x), device=x.device).repeat_interleave(num_classes - 1)
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    shares = zip(image.chunk(threads), targets.flatten().chunk(threads), strict=True)

    def share(of: Tensor, to: Tensor) -> Walk:
        walk = partial(_walk, _own(network_a), _own(network_b), steps=steps, step_size=step_size)
        size = max(1, rows // threads)
        return _joined([walk(x[some], target) for some, target in zip(of.split(size), to.split(size), strict=True)])

    p_a, p_b = _joined(_in_threads(share, list(shares)))
    return Curves(targets, p_a.view(*targets.shape, steps), p_b.view(*targets.shape, steps))


def _in_threads(share: Callable[[Tensor, Tensor], Walk], shares: list[tuple[Tensor, Tensor]]) -> list[Walk]:
    """Runs each share in its own thread: cores that wait for each other in every layer take a quarter longer."""
    if len(shares) == 1:
        return [share(*shares[0])]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(shares), initializer=partial(torch.set_num_threads, 1)) as pool:
            return list(pool.map(share, *zip(*shares, strict=True)))
    finally:
        torch.set_num_threads(threads)  # later threads begin with this setting too


def _joined(walks: list[Walk]) -> Walk:
    p_a, p_b = (torch.cat(curves) for curves in zip(*walks, strict=True))
    return p_a, p_b


def _own(network: Network) -> Network:
    """A copy of the network for this thread alone: some networks keep activations in their attributes."""
    return sharing_weights(network) if isinstance(network, nn.Module) else network


def _walk(network_a: Network, network_b: Network, x: Tensor, target: Tensor, steps: int, step_size: float) -> Walk:
    """p_j of A and of B on the way from `x` towards the `target` classes."""
    p_a, p_b = [], []
    for step in range(steps):
        x = x.detach().requires_grad_(step < steps - 1)
        # Summed, not averaged: every image takes the step it would take alone.
        cross_entropy = functional.cross_entropy(network_a(x), target, reduction="none")
        with torch.no_grad():
            p_a.append(torch.exp(-cross_entropy))
            p_b.append(torch.exp(-functional.cross_entropy(network_b(x), target, reduction="none")))
        if x.requires_grad:
            (gradient,) = torch.autograd.grad(cross_entropy.sum(), x)
            x = x - step_size * gradient
    return torch.stack(p_a, dim=1), torch.stack(p_b, dim=1)


def transition_error(p_a: Tensor, p_b: Tensor) -> Tensor:
    """|p_A - p_B| averaged over targets and steps: the share of each image in the MTE (Eq. 2), [B]."""
    return (p_a - p_b).abs().mean(dim=(1, 2))
