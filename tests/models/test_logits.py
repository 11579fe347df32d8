"""What networks return, read as logits."""

import copy
import pickle
import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zskt_dist.models import NetworkError, ReadLogits, TappedNetwork, checkpoint_activations
from zskt_dist.models.logits import AmbiguousOutputError, logarithms, logits_of

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
        OrderedDict(features=FEATURES, scores=LOGITS, loss=torch.zeros(())),
        (FEATURES, LOGITS),
        [FEATURES, LOGITS],
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
        (torch.zeros(4).long(), r"returns int64 \[4\], as numbers of classes are; .* before the argmax, the logits"),
        (torch.zeros(2, 4).bool(), r"returns bool \[2, 4\], as numbers"),
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
    [LOGITS, {"features": FEATURES, "logits": LOGITS}, (torch.zeros(2, 5, 7, 7), LOGITS)],
    ids=["tensor", "named", "alone in its shape"],
)
def test_logits_of_as_many_classes_as_there_are(output: Any) -> None:
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ((FEATURES, LOGITS), r"a tuple of 0 \[2, 5\], 1 \[2, 3\], of which 0 and 1 may be the logits"),
        ((LOGITS, OTHER), r"of which 0 and 1 may be the logits"),
        ({"logits": torch.zeros(2)}, r"a tensor \[2\] where logits are expected, \[images, classes\]"),
        ([], "a list of no tensor; one of them has to be"),
    ],
)
def test_which_ones_are_the_logits_is_not_guessed(output: Any, problem: str) -> None:
    with pytest.raises(NetworkError, match=problem):
        logits_of(output)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ([OTHER, LOGITS], "1"),
        ({"out": OTHER, "pred": LOGITS}, "pred"),
        ({0: OTHER, 1: LOGITS}, "1"),
        (Outputs(OTHER, LOGITS), "aux"),
        (SimpleNamespace(logits=OTHER, more=LOGITS), "more"),
        (LOGITS, "pred"),  # in eval mode, of a network that returns several values in training
    ],
)
def test_the_part_that_is_named_is_taken(output: Any, name: str) -> None:
    assert logits_of(output, 3, name) is LOGITS


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(AmbiguousOutputError, match="none is called 'scores'") as caught:
        logits_of({"a": OTHER, "b": LOGITS}, 3, "scores")
    assert caught.value.names == ["a", "b"]


@pytest.mark.parametrize("shape", [(5, 1), (5,)], ids=["column", "squeezed"])
def test_one_number_for_two_classes_is_refused_with_the_remedy(shape: tuple[int, ...]) -> None:
    """Both remedies, as they are written, make logits of the very beliefs that the number states."""
    x = torch.linspace(-3, 3, 5).view(shape)
    with pytest.raises(NetworkError, match=r"^returns one number for an image") as caught:
        logits_of(x, 2)
    of_x, of_p = re.findall(r"torch\.\w+\(\[.*?\], dim=1\)", str(caught.value))
    p = torch.sigmoid(x)
    logits, probabilities = (eval(code, {"torch": torch, "x": x, "p": p}) for code in (of_x, of_p))
    torch.testing.assert_close(logits.softmax(1)[:, 1], p.flatten())
    torch.testing.assert_close(logits_of(probabilities, 2)[:, 1], p.flatten())


def test_numbers_of_classes_are_not_taken_for_logits() -> None:
    assert logits_of({"one_hot": torch.zeros(2, 3).long(), "scores": LOGITS}) is LOGITS


def test_logarithms_of_probabilities_are_the_logits_up_to_a_constant() -> None:
    logits = torch.tensor([[0.0, 3.0, -200.0]])
    found = logarithms(logits.softmax(dim=1))
    assert found[0, 1] - found[0, 0] == pytest.approx(3, abs=1e-6)
    assert found[0, 2] == pytest.approx(-87.34, abs=0.01), "0 counts as the smallest normal number"
    assert logarithms(torch.full((1, 2), 0.5, dtype=torch.bfloat16)).dtype == torch.float32


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
