import pytest
import torch

from benchmarks.data_parallel import bytes_expected, measure, measure_synthesis
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
def test_synthesis_on_one_process_and_on_two() -> None:
    config = configured(
        *TINY, "method=inversion", "inversion.images=4", "inversion.steps=1", pair=("wrn-10-1", "wrn-10-1")
    )
    answer = measure_synthesis(config, batches=1, repetitions=1)
    faster = answer["two_batches_per_second"] / answer["one_batches_per_second"]
    assert answer["ratio"] == pytest.approx(faster, rel=1e-6)


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
