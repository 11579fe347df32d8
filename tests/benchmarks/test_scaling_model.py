import pytest

from benchmarks.scaling_model import Cluster, Compute, Link, Setting

TWO = Cluster(inside=Link(1e-3, 1e6), between=Link(1e-3, 1e6), node=2)


def test_closed_form_of_two_workers() -> None:
    """64 images at 0.1 s, half a second for nothing; 2 hops of a millisecond, and each byte goes once."""
    setting = Setting("", Compute(0.5, 0.1), batch=128, messages=(2000, 1000, 1000))
    assert setting.seconds(TWO, 1) == pytest.approx(0.5 + 12.8)
    assert setting.seconds(TWO, 2) == pytest.approx(0.5 + 6.4 + 3 * 0.002 + 0.004)
    assert setting.efficiency(TWO, 2) == pytest.approx(13.3 / (2 * 6.91))


def test_nodes_are_crossed_at_the_top_of_the_tree() -> None:
    """16 workers in nodes of 4: two levels inside, two between; 30/16 of the bytes over the slow link."""
    cluster = Cluster(inside=Link(1.0, 100.0), between=Link(10.0, 10.0), node=4)
    assert cluster.latency(4) == 2 * 2 * 1.0
    assert cluster.latency(16) == 2 * (2 * 1.0 + 2 * 10.0)
    assert cluster.all_reduce(4, 100) == pytest.approx(4 + 100 * 6 / 4 / 100)
    assert cluster.all_reduce(16, 100) == pytest.approx(44 + 100 * 30 / 16 / 10)
    assert cluster.all_reduce(1, 100) == 0


def test_a_batch_that_grows_with_the_workers_is_perfect_without_communication() -> None:
    grows = Setting("", Compute(0.5, 0.1), batch=128, messages=(), per_worker=True)
    assert grows.speedup(TWO, 64) == pytest.approx(64)
    assert Setting("", Compute(0.5, 0.1), 128, ()).efficiency(TWO, 64) < 0.5


def test_no_worker_is_without_an_image() -> None:
    perfect = Setting("", Compute(0.0, 0.1), batch=4, messages=())
    assert perfect.largest(TWO, 0.9, [1, 2, 4, 8]) == 4
    assert Setting("", Compute(1.0, 0.0), 4, ()).largest(TWO, 0.5, [1, 2, 4]) == 2


def test_fits_recover_what_made_the_points() -> None:
    compute = Compute.fitted({16: 0.5 + 1.6, 32: 0.5 + 3.2, 128: 0.5 + 12.8})
    assert (compute.fixed, compute.per_image) == pytest.approx((0.5, 0.1))
    link = Link.fitted({1000: 0.002 + 0.001, 100_000: 0.002 + 0.1})
    assert (link.hop, link.bandwidth) == pytest.approx((1e-3, 1e6))


def test_a_fitted_time_is_never_negative() -> None:
    compute = Compute.fitted({16: 1.0, 32: 3.0})
    assert compute.fixed == 0
    assert 1 / 16 < compute.per_image < 3 / 32
