"""The distance to the statistics of normalisation layers, against a plain loop and closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from zskt_dist.algorithms.statistics import StatisticsGap


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 3, 3),
        FrozenBatchNorm2d(3),
        nn.Flatten(),
        nn.BatchNorm1d(12, affine=False),
        nn.Linear(12, 4),
        nn.LayerNorm(4),
    )
    for layer in network:
        if hasattr(layer, "running_mean"):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


def test_the_mean_over_layers_as_a_plain_loop_has_it() -> None:
    network, x = _network(), torch.randn(5, 2, 4, 4)
    expected, seen = 0.0, x
    for layer in network:
        if hasattr(layer, "running_mean"):
            channels = seen.transpose(0, 1).flatten(1).double()
            mean = channels.mean(1)
            variance = (channels - mean[:, None]).square().mean(1)
            squares = 0.0
            for channel in range(len(mean)):
                unit = math.sqrt(layer.running_var[channel] + layer.eps)
                of_mean = (mean[channel] - layer.running_mean[channel]).item() / unit
                of_deviation = math.sqrt(variance[channel] + layer.eps) / unit - 1
                squares += of_mean**2 + of_deviation**2
            expected += 100 * math.sqrt(squares / len(mean)) / 3
        seen = layer(seen)
    gap = StatisticsGap(network)
    logits, distance = gap(x)
    assert gap.layers == 3
    assert distance.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(logits, network(x))


def test_a_batch_with_exactly_the_statistics_is_at_no_distance_and_the_gradient_leads_there() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1)).eval().requires_grad_(False)
    network[0].running_mean.fill_(3.0)
    network[0].running_var.fill_(4.0)
    exact = torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)  # mean 3, variance 4
    assert StatisticsGap(network)(exact)[1].item() == pytest.approx(0, abs=1e-5)
    x = torch.randn(64, 1, 2, 2, requires_grad=True)
    before = StatisticsGap(network)(x)[1]
    (gradient,) = torch.autograd.grad(before, x)
    after = StatisticsGap(network)(x - gradient)[1]
    assert after < before


def test_a_network_without_running_statistics_has_none() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    gap = StatisticsGap(network)
    logits, distance = gap(torch.randn(6, 1, 2, 2))
    assert gap.layers == 0
    assert distance.item() == 0
    assert logits.shape == (6, 3)


def test_layers_that_an_answer_does_not_need_do_not_count() -> None:
    """As auxiliary heads in eval mode; TorchScript takes no hooks, so it counts as having none."""
    network, x = _network(), torch.randn(5, 2, 4, 4)
    expected = StatisticsGap(network)(x)[1]
    network.auxiliary = nn.BatchNorm2d(7)

    class Answering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network[:7](x)

    for momentum in (0.0, 0.5):
        gap = StatisticsGap(Answering(), momentum)
        for _ in range(2):
            torch.testing.assert_close(gap(x)[1], expected)
    assert StatisticsGap(torch.jit.trace(_network(), x)).layers == 0


def test_no_hook_stays_even_after_an_error() -> None:
    network = _network()
    gap = StatisticsGap(network)
    gap(torch.randn(5, 2, 4, 4))
    with pytest.raises(RuntimeError):
        gap(torch.randn(5, 2, 9, 9))
    assert not any(layer._forward_pre_hooks for layer in network.modules())


def test_half_precision_is_summed_in_single() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1)).eval().requires_grad_(False).bfloat16()
    x: Tensor = (100 + torch.randn(4096, 1, 1, 1)).bfloat16()
    layer = network[0]
    unit = (layer.running_var.float() + layer.eps).sqrt()
    expected = 100 * torch.hypot(x.float().mean() / unit, (x.float().var(correction=0) + layer.eps).sqrt() / unit - 1)
    assert StatisticsGap(network)(x)[1].item() == pytest.approx(expected.item(), rel=1e-3)
