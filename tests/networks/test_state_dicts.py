"""Weights as other people save them."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zskt_dist.errors import ConfigError
from zskt_dist.models import LeNet
from zskt_dist.networks.state_dicts import find_state_dicts
from zskt_dist.networks.weights import fit, load_into, read_weights, save_weights

KEY = "teacher.checkpoint"
RIGHT, OTHER = ({"w": torch.full((2,), value), "b": torch.full((1,), value)} for value in (1.0, 2.0))


@pytest.mark.parametrize(
    ("loaded", "place"),
    [
        (RIGHT, ""),
        (OrderedDict(RIGHT), ""),
        ({"state_dict": RIGHT, "epoch": 3, "optimizer": {"state": {}}}, "state_dict"),
        ({"model": RIGHT, "model_ema": OTHER}, "model"),
        ({"model_ema": OTHER, "model": RIGHT}, "model"),
        ({"model_state_dict": RIGHT, "loss": torch.tensor(0.5)}, "model_state_dict"),
        ({"net": RIGHT, "acc": 97.5}, "net"),
        ({"network": RIGHT}, "network"),
        ({"ema": {"decay": 0.99, "state_dict": RIGHT}}, "ema.state_dict"),
        ({"ema_state_dict": RIGHT, "epoch": 1}, "ema_state_dict"),
        ({"teacher_state_dict": RIGHT, "student_state_dict": OTHER}, "teacher_state_dict"),
        ({"student_state_dict": RIGHT}, "student_state_dict"),
        ({"state_dict": {"teacher": RIGHT, "student": OTHER}}, "state_dict.teacher"),
        ({"model": {"state_dict": RIGHT, "ema": OTHER}}, "model.state_dict"),
    ],
)
def test_nested_weights_are_found(tmp_path: Path, loaded: Any, place: str, caplog: pytest.LogCaptureFixture) -> None:
    first, *_ = find_state_dicts(loaded, "teacher")
    assert first.place == place
    torch.save(loaded, tmp_path / "t.pt")
    weights = read_weights(tmp_path / "t.pt", KEY, "teacher")
    assert weights.keys() == RIGHT.keys()
    assert all(torch.equal(weights[name], RIGHT[name]) for name in RIGHT)
    assert (f"takes the weights under {place}" in caplog.text) == bool(place)


@pytest.mark.timeout(10)
def test_only_a_few_keys_lead_to_weights() -> None:
    """In twenty mappings, each of which holds the next one three times, there would be billions of ways."""
    inside: dict[str, Any] = RIGHT
    for _ in range(3):
        inside = dict.fromkeys(("state_dict", "model", "net"), inside)
    assert len({found.place for found in find_state_dicts(inside)}) == 27
    for _ in range(17):
        inside = dict.fromkeys(("state_dict", "model", "net"), inside)
    assert list(find_state_dicts(inside)) == []


def test_what_was_not_taken_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"model_ema": OTHER, "model": RIGHT}, tmp_path / "t.pt")
    read_weights(tmp_path / "t.pt", KEY)
    assert "takes the weights under model, not those under model_ema" in caplog.text


def _prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "network.", "model.module."]
)
def test_prefixes_are_taken_off(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(1)
    source, target = LeNet(image_size=(8, 8)), LeNet(image_size=(8, 8))
    save_file(_prefixed(source.state_dict(), prefix), tmp_path / "t.safetensors")
    load_into(target, read_weights(tmp_path / "t.safetensors", KEY), KEY, "t")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_prefixes_that_belong_to_the_network_stay() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    source, target = Wrapper(), Wrapper()
    load_into(target, _prefixed(source.state_dict(), "module."), KEY, "t")
    assert torch.equal(source.model.weight, target.model.weight)


def test_two_weights_never_become_one() -> None:
    weights = nn.Linear(2, 2).state_dict()
    both = weights | _prefixed(weights, "model.")
    with pytest.raises(ConfigError, match=r"unexpected: model\.weight, model\.bias"):
        load_into(nn.Linear(2, 2), both, KEY, "t")


def test_safetensors_under_any_name(tmp_path: Path) -> None:
    save_file(RIGHT, tmp_path / "weights.bin")
    assert read_weights(tmp_path / "weights.bin", KEY).keys() == RIGHT.keys()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_counters_that_older_files_lack_start_at_zero(device: str) -> None:
    weights = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()
    del weights["1.num_batches_tracked"]
    with torch.device(device):
        target = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    found = fit(target, _prefixed(weights, "module."), KEY, "t")
    assert found.pop("1.num_batches_tracked").tolist() == 0
    assert found.keys() == weights.keys()
    del weights["1.running_mean"]
    with pytest.raises(ConfigError, match=r"does not fit the architecture; missing: 1\.running_mean$"):
        fit(target, weights, KEY, "t")


def test_half_precision_becomes_the_precision_of_the_network() -> None:
    target = nn.Linear(2, 2)
    load_into(target, {"weight": torch.full((2, 2), 0.1, dtype=torch.bfloat16), "bias": torch.zeros(2)}, KEY, "t")
    assert target.weight.dtype == torch.float32
    assert target.weight[0, 0].item() == 0.10009765625  # the nearest number with eight bits


def test_tied_weights_are_saved_under_both_names(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
        network[2].weight = network[0].weight
        return network

    source, target = tied(), tied()
    save_weights(tmp_path / "t.safetensors", source, {})
    load_into(target, read_weights(tmp_path / "t.safetensors", KEY), KEY, "t")
    assert torch.equal(target[0].weight, source[2].weight)
    assert target[0].weight is target[2].weight
