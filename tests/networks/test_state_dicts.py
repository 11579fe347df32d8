"""State dicts in checkpoints as other people save them."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zskt_dist.networks.state_dicts import find_state_dicts
from zskt_dist.networks.weights import read_weights

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


def test_safetensors_under_any_name(tmp_path: Path) -> None:
    save_file(RIGHT, tmp_path / "weights.bin")
    assert read_weights(tmp_path / "weights.bin", KEY).keys() == RIGHT.keys()


def test_versions_of_modules_are_kept(tmp_path: Path) -> None:
    """Their loaders ask for them, to translate what earlier versions have saved."""
    state = nn.Sequential(nn.BatchNorm2d(2)).state_dict()
    torch.save({"state_dict": state}, tmp_path / "t.pt")
    assert read_weights(tmp_path / "t.pt", KEY)._metadata == {"": {"version": 1}, "0": {"version": 2}}
    save_file(state, tmp_path / "t.safetensors")
    assert read_weights(tmp_path / "t.safetensors", KEY)._metadata is None
