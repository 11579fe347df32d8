"""How far a batch is from the images that a network was trained on, as its normalisation layers remember them.

Shapes: B images of a batch, C classes; F channels of a layer.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn


class StatisticsGap:
    """Distance between the statistics of batches and the running ones, in front of every layer that has such.

    For a channel it is the 2-Wasserstein distance of two normal distributions, in units of the running deviation s,
    sqrt(((mean - running mean) / s)^2 + (deviation / s - 1)^2), with the layer's eps in both variances. Over channels
    it is the root of the mean square, over layers the mean, in percent: so it means the same for every network. The sum
    of norms of DeepInversion (Yin et al. 2020, Eq. 4), which it replaces, is decided by a few channels of large
    variance. Its gradient reaches the images, so a generator can lower it.

    With a momentum m, mean and variance are those of a mixture: a share m of what earlier calls have seen, 1 - m of
    this batch. So a small batch does not have to be as varied as all training images are, only to add what is lacking.

    Args:
        network: Frozen, in eval mode, [B, channels, H, W] to logits. Folded batch norms have no statistics any more.
        momentum: m; 0: each batch by itself.

    Attributes:
        layers: Number of layers with running statistics, those of TorchScript not counted, which take no hooks; 0: the
            distance is always 0.
        seen: Mean and variance [F] of each layer's inputs so far; empty before the first batch, and without a momentum.
    """

    def __init__(self, network: nn.Module, momentum: float = 0.0) -> None:
        self._network, self._momentum = network, momentum
        self._normalising = [layer for layer in network.modules() if _has_running_statistics(layer)]
        self.layers = len(self._normalising)
        self.seen: list[Moments] = []

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, channels, H, W] to the network's logits [B, C], and the distance, a scalar."""
        found: dict[nn.Module, Moments] = {}
        # Hooks live for this call only, so that the network itself stays exportable and picklable.
        handles = [layer.register_forward_pre_hook(partial(_measure, found)) for layer in self._normalising]
        try:
            logits = self._network(x)
        finally:
            for handle in handles:
                handle.remove()
        reached = [layer for layer in self._normalising if layer in found]  # auxiliary heads are not, in eval mode
        moments = [found[layer] for layer in reached]
        if self.seen:
            moments = [_mixed(before, now, self._momentum) for before, now in zip(self.seen, moments, strict=True)]
        if self._momentum:
            self.seen = [(mean.detach(), variance.detach()) for mean, variance in moments]
        distances = [_distance(layer, *each) for layer, each in zip(reached, moments, strict=True)]
        return logits, 100 * torch.stack(distances).mean() if distances else logits.new_zeros(())


Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel, [F]."""


def _has_running_statistics(layer: nn.Module) -> bool:
    """True for batch norms of all kinds, those of torchvision and timm that are no subclass of torch's included."""
    if isinstance(layer, torch.jit.ScriptModule):
        return False
    return all(isinstance(getattr(layer, name, None), Tensor) for name in ("running_mean", "running_var"))


def _measure(found: dict[nn.Module, Moments], layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0].float() if inputs[0].dtype in (torch.bfloat16, torch.float16) else inputs[0]
    variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
    found[layer] = mean, variance


def _mixed(before: Moments, now: Moments, momentum: float) -> Moments:
    """Moments of a mixture with shares m and 1 - m; its variance includes that between the two means."""
    apart = (now[0] - before[0]).square()
    mean = momentum * before[0] + (1 - momentum) * now[0]
    return mean, momentum * before[1] + (1 - momentum) * (now[1] + momentum * apart)


def _distance(layer: nn.Module, mean: Tensor, variance: Tensor) -> Tensor:
    eps = getattr(layer, "eps", 0.0)
    running_mean = layer.get_buffer("running_mean").to(mean.dtype)
    deviation = (layer.get_buffer("running_var").to(mean.dtype) + eps).sqrt()
    apart = torch.cat([(mean - running_mean) / deviation, (variance + eps).sqrt() / deviation - 1])
    return torch.linalg.vector_norm(apart) / math.sqrt(len(mean))
