import pytest

from zskt_dist.algorithms.supervised import step_decay


@pytest.mark.parametrize(("iteration", "factor"), [(0, 1), (29, 1), (30, 0.2), (59, 0.2), (60, 0.04), (80, 0.008)])
def test_the_rate_is_divided_by_five_at_the_papers_milestones(iteration: int, factor: float) -> None:
    assert step_decay(iteration, 100, (0.3, 0.6, 0.8), 0.2) == pytest.approx(factor)
