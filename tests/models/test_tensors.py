"""What a network holds besides its parameters, wherever it keeps it."""

import pytest
import torch
from torch import nn

from zskt_dist.models import count_parameters, device_of, sharing_weights, tensors_of


class Hoarder(nn.Module):
    """Keeps tensors in all kinds of places, one of them twice, and a dict that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("buffer", torch.zeros(1))
        self.plain = torch.zeros(2)
        self.kept: list[object] = [torch.zeros(3), ({"deep": torch.zeros(4)}, 5, "six"), self.linear.weight]
        self.activations: dict[str, object] = {"layer1": self.linear(torch.zeros(1, 2))}
        self.activations["self"] = self.activations


def test_each_tensor_once() -> None:
    shapes = sorted(tuple(tensor.shape) for tensor in tensors_of(Hoarder()))
    assert shapes == [(1,), (1, 2), (2,), (2,), (2, 2), (3,), (4,)]


def test_a_copy_shares_them_all() -> None:
    """Also what is part of a graph, which deepcopy refuses; containers are the copy's own."""
    network = Hoarder()
    copied = sharing_weights(network)
    assert copied.kept is not network.kept
    assert copied.kept[0] is network.kept[0]
    assert copied.activations["layer1"] is network.activations["layer1"]
    assert copied.linear.weight is network.linear.weight


def _with_a_buffer(where: str) -> nn.Module:
    network = nn.Flatten()
    network.register_buffer("weight", torch.zeros(1, device=where))
    return network


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Sequential(_with_a_buffer("cpu"), nn.Linear(2, 2, device="meta")), "meta"),
        (_with_a_buffer("meta"), "meta"),
        (nn.Flatten(), "cpu"),
    ],
    ids=["parameters first", "else buffers", "neither"],
)
def test_where_a_network_is(network: nn.Module, expected: str) -> None:
    assert device_of(network) == torch.device(expected)


def test_parameters_are_counted_and_buffers_are_not() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert count_parameters(network) == 3 * 4 + 4 + 4 + 4
