"""`zskt_dist.transfer` in a process group: all ranks together do what one process does alone."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.support.distributed import Ranks
from tests.support.nets import TinyClassifier
from tests.support.transfers import assert_equal, state_of, tiny_pair, tiny_transfer
from tests.support.user_networks import Careful
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_generator


def _without_norm(config: Config, image_shape: ImageShape) -> nn.Module:
    """A generator without batch norm, whose statistics are of each rank's own images."""
    generator = new_generator(config, image_shape)
    for number in range(4):
        setattr(generator, f"bn{number}", nn.Identity())
    return generator


class _OfRank(NamedTuple):
    seen: list[Tensor]
    """Images that the student was trained on, batch by batch."""
    state: dict[str, Tensor]
    told: list[Any]
    kl: float
    iterations: int


def _of_rank(world: World, stops: bool) -> _OfRank:
    """Rank 0 alone wants to stop."""
    teacher, student = tiny_pair(norm=False)
    seen: list[Tensor] = []

    def keep(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if network.training and inputs[0].any():  # zeros are asked about the network's parameters
            seen.append(inputs[0].detach().clone())

    with pytest.MonkeyPatch.context() as patch, student.register_forward_pre_hook(keep):
        patch.setattr("zskt_dist.tasks.transfer.new_generator", _without_norm)
        result = tiny_transfer(teacher, student, on_progress=lambda told: not (stops and world.rank == 0))
    told = [result.scores, result.estimates]
    return _OfRank(seen, state_of(student), told, result.history[-1]["kl"], result.iterations)


def test_ranks_share_the_batches(two_ranks: Ranks) -> None:
    """Each sees its half of them, and both together learn what one process learns from all."""
    alone = _of_rank(World(torch.device("cpu")), False)
    ranks = two_ranks.run(_of_rank, False)
    for number, whole in enumerate(alone.seen):
        halves = [rank.seen[number] for rank in ranks]
        assert [len(x) for x in halves] == [4, 4]
        torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-4, atol=1e-4)
    for rank in ranks:
        assert_equal(rank.state, ranks[0].state)
        assert rank[2:] == ranks[0][2:]
        torch.testing.assert_close(rank.state, alone.state, rtol=1e-4, atol=1e-4)
        assert rank.kl == pytest.approx(alone.kl, rel=1e-3)
        assert rank.iterations == len(alone.seen) / 3 == 6  # a generator step and two of the student


def test_ranks_stop_together(two_ranks: Ranks) -> None:
    """One iteration after the vote."""
    assert [rank.iterations for rank in two_ranks.run(_of_rank, True)] == [3, 3]


def _with_an_unused_head(_: World) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(1)
    teacher, student = TinyClassifier(3), Careful(3, 1)
    before = state_of(student)
    tiny_transfer(teacher, student, beta=0)
    return before, state_of(student)


def test_ranks_leave_alone_what_has_no_part_in_the_answer(two_ranks: Ranks) -> None:
    (before, after), (_, others) = two_ranks.run(_with_an_unused_head)
    assert_equal(after, others)
    assert torch.equal(before["auxiliary.weight"], after["auxiliary.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])
