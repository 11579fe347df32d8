"""What counts as the same network."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from zskt_dist.errors import UserError
from zskt_dist.export import onnx, pt2
from zskt_dist.export.check import Difference, agreement, compare
from zskt_dist.export.exported_network import Deployed, ExportedNetwork
from zskt_dist.models import ImageShape

SHAPE = ImageShape(1, 2, 2)


def _deployed(network: nn.Module, *, normalises: bool = False) -> Deployed:
    exported: Any = SimpleNamespace(network=network, mean=(0.5,), std=(0.25,))
    return Deployed(cast(ExportedNetwork, exported), normalises=normalises)


def _linear() -> nn.Module:
    """Four pixels to two logits: their sum, and three times their sum."""
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0] * 4, [3.0] * 4]))
    return nn.Sequential(nn.Flatten(), layer)


def test_a_shift_is_seen_as_it_is_and_small_beside_large_logits() -> None:
    network = _linear()
    difference = compare(_deployed(network), lambda x: network(x) + 2**-10, SHAPE)
    assert difference.ordinary == pytest.approx(2**-10, rel=1e-3)
    assert difference.large < 2**-10 / 10  # logits of hundreds
    assert difference.within(2**-9)
    assert not difference.within(2**-11)


def test_what_shows_on_large_images_only() -> None:
    network = _linear()
    difference = compare(_deployed(network), lambda x: network(x.clamp(-10, 10)), SHAPE)
    assert difference.ordinary == 0
    assert difference.large > 0.5
    assert not difference.within(1e-4)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_never_within(wrong: float) -> None:
    network = _linear()
    assert not compare(_deployed(network), lambda x: network(x) + wrong, SHAPE).within(1e9)
    assert not Difference(0.0, math.nan).within(1e9)


def test_a_frozen_batch_size_is_told() -> None:
    network = _linear()

    def two_only(x: Tensor) -> Tensor:
        return network(x.view(2, 4))

    with pytest.raises(UserError, match=r"fails on a batch of 1 \(RuntimeError: shape"):
        compare(_deployed(network), two_only, SHAPE)
    with pytest.raises(UserError, match=r"answers \(1, 3\) where the network answers \(1, 2\)"):
        compare(_deployed(network), lambda x: torch.zeros(len(x), 3), SHAPE)


def test_pixels_are_normalised_inside() -> None:
    network = _linear()
    deployed = _deployed(network, normalises=True)
    pixels = torch.full((1, 1, 2, 2), 0.75)  # (0.75 - 0.5) / 0.25 = 1
    assert deployed(pixels).tolist() == [[4.0, 12.0]]
    assert torch.equal(deployed.from_normalised(torch.ones(1, 1, 2, 2)), pixels)
    assert compare(deployed, lambda x: network((x - 0.5) / 0.25), SHAPE).ordinary < 1e-6


def test_agreement_counts_equal_classes() -> None:
    images = torch.tensor([1.0, 1.0, -1.0, 2.0])[:, None, None, None].expand(4, 1, 2, 2)
    always_second = torch.tensor([0.0, 1.0])
    assert agreement(_deployed(_linear()), lambda x: always_second.expand(len(x), 2), [images]) == 0.75


def test_agreement_asks_about_a_few_images_at_a_time() -> None:
    """1,000 images of 3x224x224 and what a network makes of them do not fit into memory."""
    asked = []

    def second(x: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.tensor([0.0, 1.0]).expand(len(x), 2)

    positive, negative = torch.ones(70, 1, 2, 2), -torch.ones(10, 1, 2, 2)  # the network says: second, first
    assert agreement(_deployed(_linear()), second, [positive, negative]) == 70 / 80
    assert asked == [32, 32, 6, 10]
    assert agreement(_deployed(_linear()), second, []) is None


def test_hooks_take_part_in_every_format() -> None:
    """A hook may be what turns the answer of a foreign network into logits."""
    network = _linear()
    network.register_forward_hook(lambda module, inputs, output: 7 - output)
    deployed = _deployed(network)
    program = pt2.export_program(deployed, SHAPE)
    images = torch.ones(3, 1, 2, 2)
    assert pt2.from_bytes(pt2.as_bytes(program))(images).tolist() == [[3.0, -5.0]] * 3
    assert onnx.OnnxNetwork(onnx.as_bytes(program, {}))(images).tolist() == [[3.0, -5.0]] * 3


def test_quantization_needs_no_symbolic_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cannot be had of every network, and their failure leaves a file in the current folder."""

    def fail(*_: object) -> None:
        raise Exception("Incomplete symbolic shape inference")

    monkeypatch.setattr("onnxruntime.tools.symbolic_shape_infer.SymbolicShapeInference.infer_shapes", fail)
    monkeypatch.chdir(tmp_path)
    content = onnx.quantized(onnx.as_bytes(pt2.export_program(_deployed(_linear()), SHAPE), {}))
    (first, second) = onnx.OnnxNetwork(content)(torch.ones(1, 1, 2, 2))[0].tolist()
    assert (first, second) == (pytest.approx(4, abs=0.1), pytest.approx(12, abs=0.1))
    assert list(tmp_path.iterdir()) == []
