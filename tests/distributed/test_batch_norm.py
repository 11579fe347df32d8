"""Running batch-norm statistics: each worker's own, averaged to be seen, and back."""

import torch
from torch import Tensor, nn

from tests.support.distributed import Ranks
from zskt_dist.distributed.batch_norm import averaged_statistics, load_statistics, running_statistics
from zskt_dist.distributed.world import World


def _network(rank: int) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    network[1].running_mean.copy_(torch.tensor([1.0, 10.0]) * (rank + 1))
    return network


def _means(world: World) -> tuple[list[float], list[float], bool]:
    network = _network(world.rank)
    with averaged_statistics(network, world) as seen:
        inside = seen[1].running_mean.tolist()
        assert not seen.training
    return inside, network[1].running_mean.tolist(), network.training


def test_inside_the_mean_of_all_workers_and_afterwards_each_its_own(two_ranks: Ranks) -> None:
    first, second = two_ranks.run(_means)
    assert first == ([1.5, 15.0], [1.0, 10.0], True)
    assert second == ([1.5, 15.0], [2.0, 20.0], True)


def test_loading_gives_each_rank_its_own_and_another_number_of_workers_the_mean() -> None:
    saved: list[dict[str, Tensor]] = [running_statistics(_network(rank)) for rank in range(2)]
    for world, expected in (
        (World(torch.device("cpu"), rank=1, size=2), [2.0, 20.0]),
        (World(torch.device("cpu")), [1.5, 15.0]),
    ):
        network = _network(7)
        load_statistics(network, saved, world)
        assert network[1].running_mean.tolist() == expected
