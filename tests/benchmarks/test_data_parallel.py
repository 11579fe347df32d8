from contextlib import nullcontext
from functools import partial

import pytest
import torch

from benchmarks import data_parallel
from benchmarks.data_parallel import Synthesis, bytes_expected, measure
from benchmarks.ranks import Ranks
from benchmarks.subject import configured, settled
from zskt_dist.models import ImageShape, build_network

TINY = ("batch_size=4", "transfer.student_steps=2", "generator.channels=[4,4]")


@pytest.mark.slow  # three processes import torch
def test_contract_and_traffic() -> None:
    config = configured(*TINY, pair=("wrn-10-1", "wrn-10-1"))
    answer = measure(config, iterations=1, repetitions=1)
    assert answer["single_iterations_per_second"] > 0
    assert answer["ddp_iterations_per_second"] > 0
    assert answer["ratio"] == pytest.approx(
        answer["ddp_iterations_per_second"] / answer["single_iterations_per_second"], rel=1e-6
    )
    assert answer["bytes_per_iteration"] == answer["bytes_expected"]


@pytest.mark.slow
def test_two_processes_share_out_the_images_that_one_makes() -> None:
    small = ("inversion.images=4", "inversion.steps=2", "inversion.parts=2")
    make = partial(Synthesis, configured(*TINY, "method=inversion", *small, pair=("wrn-10-1", "wrn-10-1")))
    with Ranks(1, 1, make) as one, Ranks(2, 1, make) as two:
        for ranks in (one, two):
            ranks("make", 2)
        (whole,), parts = one("last"), two("last")
    assert [list(part) for part in parts] == [[0], [1]]
    for number, images in (parts[0] | parts[1]).items():
        torch.testing.assert_close(images, whole[number], rtol=1e-3, atol=1e-3)


def test_how_many_times_faster_is_a_median_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"one": [4.0, 6.0], "two": [2.0, 2.0]}
    monkeypatch.setattr(data_parallel, "Ranks", lambda *about: nullcontext(print))
    monkeypatch.setattr(data_parallel, "alternate", lambda *about: times)
    answer = data_parallel.measure_synthesis(configured("method=inversion"), batches=3, repetitions=2)
    assert (answer["one_batches_per_second"], answer["two_batches_per_second"]) == (3 / 5, 3 / 2)
    assert answer["ratio"] == 2.5


def test_closed_form() -> None:
    config = configured("transfer.generator_steps=2", "transfer.student_steps=3")
    assert bytes_expected(config, generator=10, student=100) == 4 * (2 * 10 + 3 * 100)


def test_a_settled_network_normalises_its_activations() -> None:
    """So that an untrained teacher computes with ordinary numbers."""
    torch.manual_seed(0)
    shape = ImageShape(3, 16, 16)
    network = settled(build_network("wrn-10-1", shape, 10), shape)
    assert not network.training
    assert all(norm.momentum == 0.1 for norm in network.modules() if isinstance(norm, torch.nn.BatchNorm2d))
    assert 0.01 < network(torch.randn(64, *shape)).std() < 10
