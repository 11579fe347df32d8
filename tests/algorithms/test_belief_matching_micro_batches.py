"""A batch in micro-batches gives the gradients of the whole; only batch norm sees the difference."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import algorithm_1
from tests.support.algorithm_1 import N_G, N_S, N, Networks, PlainLoop
from zskt_dist.algorithms.generator_terms import GeneratorTerms
from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.models import TappedNetwork

BATCH = 7
MODES = ["post_update", "pre_update", "fresh"]


class _Noise:
    """Of one iteration, for the whole batch."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def __call__(self, draw: int) -> Tensor:
        return algorithm_1.noise(self.iteration, draw, BATCH)

    def like(self, x: Tensor, draw: int) -> Tensor:
        random = torch.Generator().manual_seed(1000 * self.iteration + draw)
        return torch.randn(BATCH, *x.shape[1:], generator=random, dtype=x.dtype)


def _trained(*, norm: bool = False, terms: dict[str, Any] | None = None, **settings: Any) -> tuple[Networks, Metrics]:
    """The networks after N iterations, and the metrics of the last."""
    networks = algorithm_1.networks(norm=norm)
    if terms is not None:
        settings["terms"] = GeneratorTerms(TappedNetwork(networks[0]), **terms)
    transfer = algorithm_1.transfer(*networks, **settings)
    for iteration in range(N):
        metrics = transfer.step(_Noise(iteration))
    return networks, metrics


def _assert_same(mine: tuple[Networks, Metrics], expected: tuple[Networks, Metrics]) -> None:
    for network, other in zip(mine[0], expected[0], strict=True):
        for name, value in other.named_parameters():
            torch.testing.assert_close(network.get_parameter(name), value, rtol=1e-9, atol=1e-11, msg=name)
    assert mine[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        torch.testing.assert_close(mine[1][name], value, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("beta", [0.0, 7.0])
@pytest.mark.parametrize("micro_batch", [1, 3, 4, 7, 100])
def test_micro_batches_equal_the_whole_batch(mode: str, beta: float, micro_batch: int) -> None:
    settings = {"pseudo_batch": mode, "beta": beta}
    _assert_same(_trained(micro_batch=micro_batch, **settings), _trained(**settings))


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
@pytest.mark.parametrize("attention", ["squared_mean", "l2"])
def test_every_loss_is_a_mean_over_images(reduction: str, attention: str) -> None:
    settings = {"gap": belief_gap("jensen_shannon", reduction=reduction), "attention": attention}
    _assert_same(_trained(micro_batch=3, **settings), _trained(**settings))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("augmentation", ["noise", "blur"])
def test_terms_of_the_generator_equal_those_of_the_whole_batch(mode: str, augmentation: str) -> None:
    """Each image of a micro-batch gets the noise that it has in the whole batch."""
    weights = {"teacher_entropy": 0.3, "student_entropy": -0.2, "consistency": 0.5}
    settings = {"pseudo_batch": mode, "terms": {**weights, "augmentation": augmentation}}
    expected = _trained(**settings)
    _assert_same(_trained(micro_batch=3, **settings), expected)
    assert {"generator_consistency", "generator_teacher_entropy"} < expected[1].keys()


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_normalises_each_micro_batch_by_itself(mode: str) -> None:
    """7 images in at most 3 at a time: 3, 2 and 2, not 3, 3 and 1."""
    networks = algorithm_1.networks(norm=True)
    report = PlainLoop(*networks, mode=mode, sizes=(3, 2, 2)).run()[-1]
    gap = belief_gap(temperature=algorithm_1.TEMPERATURE)
    trained, metrics = _trained(norm=True, micro_batch=3, pseudo_batch=mode, gap=gap)
    _assert_same((trained, metrics), (networks, report))
    student, expected = trained[1], networks[1]
    torch.testing.assert_close(student.norm.running_var, expected.norm.running_var, rtol=1e-9, atol=1e-11)
    assert student.norm.num_batches_tracked == N * 3 * (N_G + N_S)


def test_no_forward_pass_sees_more_than_a_micro_batch() -> None:
    networks = algorithm_1.networks()
    sizes: set[int] = set()
    for network in networks:
        network.register_forward_hook(lambda _module, inputs, _output: sizes.add(len(inputs[0])))
    for mode in MODES:
        algorithm_1.transfer(*networks, micro_batch=4, pseudo_batch=mode).step(_Noise(0))
    assert sizes == {4, 3}
