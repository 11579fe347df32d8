"""Processes that answer together, also after one of them has failed."""

import pytest
import torch
import torch.distributed as dist

from tests.support.distributed import Ranks
from zskt_dist.distributed.world import World


def _fail(world: World, rank: int) -> None:
    if world.rank == rank:
        raise ValueError(f"of {world.rank}")


def _summed(world: World, value: float) -> tuple[int, float]:
    return dist.get_rank(), world.sum(torch.tensor(value * (world.rank + 1))).item()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_names_its_rank_and_spoils_no_later_answer(two_ranks: Ranks, rank: int) -> None:
    with pytest.raises(RuntimeError, match=f"rank {rank} of 2:(.|\\n)*ValueError: of {rank}"):
        two_ranks.run(_fail, rank)
    assert two_ranks.run(_summed, 2.0) == [(0, 6.0), (1, 6.0)]
