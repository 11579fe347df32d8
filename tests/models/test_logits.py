"""What networks return, read as logits."""

import copy
import pickle
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zskt_dist.models import NetworkError, ReadLogits, TappedNetwork, checkpoint_activations
from zskt_dist.models.logits import logits_of

LOGITS = torch.arange(6.0).view(2, 3)
OTHER = -LOGITS
FEATURES = torch.zeros(2, 5)
Outputs = namedtuple("Outputs", ["logits", "aux"])


@dataclass
class HuggingFace:
    loss: Tensor | None
    hidden: Tensor
    logits: Tensor


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"logits": LOGITS},
        {"aux": OTHER, "out": LOGITS},
        {"out": OTHER, "output": LOGITS},  # the likelier name
        {"features": FEATURES, "scores": LOGITS},
        OrderedDict(features=FEATURES, scores=LOGITS, more=OTHER),
        (FEATURES, LOGITS),
        [LOGITS, OTHER],
        (None, "text", LOGITS),
        Outputs(LOGITS, OTHER),
        Outputs(aux=OTHER, logits=LOGITS),
        HuggingFace(None, FEATURES, LOGITS),
        SimpleNamespace(aux=OTHER, logits=LOGITS),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_found(output: Any) -> None:
    assert logits_of(output, 3) is LOGITS


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (LOGITS, "returns logits of 3 classes, and the data has 4"),
        ({"logits": LOGITS, "b": torch.zeros(2, 4)}, "logits of 3 classes, and the data has 4"),
        ((FEATURES, LOGITS), r"a tuple of 0 \[2, 5\], 1 \[2, 3\]; .* \[images, 4\], or be called logits, output, out"),
        (torch.zeros(2, 4, 7, 7), r"a tensor \[2, 4, 7, 7\] where logits are expected, \[images, 4\]"),
        (torch.zeros(4), r"a tensor \[4\] where"),
        (None, "a NoneType of no tensor"),
        ("text", "a str of no tensor"),
        ({}, "a dict of no tensor"),
    ],
)
def test_what_is_no_logits_is_said(output: Any, problem: str) -> None:
    with pytest.raises(NetworkError, match=problem):
        logits_of(output, 4)


@pytest.mark.parametrize(
    "output",
    [LOGITS, {"features": FEATURES, "logits": LOGITS}, (LOGITS, OTHER), (torch.zeros(2, 5, 7, 7), LOGITS)],
    ids=["tensor", "named", "equal classes", "alone in its shape"],
)
def test_logits_of_as_many_classes_as_there_are(output: Any) -> None:
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ((FEATURES, LOGITS), r"a tuple of 0 \[2, 5\], 1 \[2, 3\]; one of them alone has to be .* \[images, classes\]"),
        ({"logits": torch.zeros(2)}, r"a tensor \[2\] where logits are expected, \[images, classes\]"),
        ([], "a list of no tensor; one of them has to be"),
    ],
)
def test_which_ones_are_the_logits_is_not_guessed(output: Any, problem: str) -> None:
    with pytest.raises(NetworkError, match=problem):
        logits_of(output)


class _Dict(nn.Module):
    attention_layers = ("0",)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.conv(x)
        return {"maps": maps, "logits": self.fc(maps.mean((2, 3)))}


def _hooked() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = _Dict()
    network = copy.deepcopy(plain)
    network.register_forward_hook(ReadLogits(3))
    return network, plain


def test_the_reader_goes_along_with_copies_and_changes_no_name() -> None:
    network, plain = _hooked()
    assert list(network.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 1, 4, 4)
    expected = plain(x)["logits"]
    for each in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network)), copy.copy(network)):
        assert torch.equal(each(x), expected)


def test_the_reader_works_with_taps_checkpointing_and_export() -> None:
    network, plain = _hooked()
    x = torch.randn(2, 1, 4, 4)
    expected = plain(x)
    exported = torch.export.export(network.eval(), (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    assert torch.equal(exported.module()(x), expected["logits"])
    checkpoint_activations(network)
    beliefs = TappedNetwork(network, ["conv"])(x)
    assert torch.equal(beliefs.logits, expected["logits"])
    assert torch.equal(beliefs.activations[0], expected["maps"])


def test_the_reader_works_compiled() -> None:
    network, plain = _hooked()
    tapped = TappedNetwork(network, ["conv"])
    tapped.compile(backend="eager", fullgraph=True)
    x = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(tapped(x).logits, plain(x)["logits"])
