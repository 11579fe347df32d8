"""Teachers of doubtful origin: what is refused, and that refusing runs nothing."""

import argparse
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.torch_version import TorchVersion

from zskt_dist.errors import ConfigError
from zskt_dist.models import LeNet
from zskt_dist.networks.weights import load_into, read_about, read_weights, save_weights

KEY = "teacher.checkpoint"


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.path,))


def test_round_trip_with_metadata_and_the_same_bytes_for_the_same_weights(tmp_path: Path) -> None:
    network = LeNet(image_size=(8, 8))
    about = {"arch": "lenet", "image_shape": [1, 8, 8]}
    digests = {save_weights(tmp_path / f"{i}.safetensors", network, about) for i in range(5)}
    assert len(digests) == 1
    path = tmp_path / "0.safetensors"
    assert read_about(path) == about
    other = LeNet(image_size=(8, 8))
    load_into(other, read_weights(path, KEY), KEY, path)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_a_plain_state_dict_is_read(tmp_path: Path) -> None:
    network = LeNet(image_size=(8, 8))
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    weights = read_weights(tmp_path / "teacher.pt", KEY)
    assert torch.equal(weights["fc3.bias"], network.fc3.bias)


def test_a_checkpoint_of_torchvisions_references_is_read(tmp_path: Path) -> None:
    """It keeps the script's arguments beside the weights."""
    network = LeNet(image_size=(8, 8))
    averaged = torch.optim.swa_utils.AveragedModel(network).state_dict()
    arguments = argparse.Namespace(model="lenet", lr=0.1, device="cpu", data_path=None, lr_steps=[1, 2])
    states = {"optimizer": {"state": {}, "param_groups": []}, "lr_scheduler": {"last_epoch": 3}, "epoch": 3}
    content = {"model": network.state_dict(), **states, "args": arguments, "model_ema": averaged}
    torch.save(content, tmp_path / "checkpoint.pth")
    found = read_weights(tmp_path / "checkpoint.pth", "teacher.checkpoint")
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_a_malicious_pickle_is_refused_and_executes_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    torch.save({"weight": Malicious(str(victim))}, tmp_path / "teacher.pt")
    with pytest.raises(ConfigError, match="could run code when loaded, so it is refused"):
        read_weights(tmp_path / "teacher.pt", KEY)
    assert not victim.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(LeNet(), tmp_path / "teacher.pt")
    with pytest.raises(ConfigError, match=r"torch\.save\(model\.state_dict\(\)"):
        read_weights(tmp_path / "teacher.pt", KEY)


@pytest.mark.parametrize("name", ["teacher.safetensors", "teacher.pt"])
@pytest.mark.parametrize("keep", [0, 7, 1000])
def test_truncated_files_give_one_line(tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(LeNet().state_dict(), path)
    else:
        save_file(LeNet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError) as caught:
        read_weights(path, KEY)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    expected = "is cut off; copy it again" if keep else "is empty; copy it again"
    if (name, keep) == ("teacher.safetensors", 7):  # not even the length of its header
        expected = "damaged or not safetensors"
    assert caught.value.problem.startswith(expected)


def test_a_safetensors_file_whose_last_weights_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_file(LeNet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="is cut off; copy it again"):
        read_weights(path, KEY)
    path.write_bytes(b"\0" * 8 + b"{" + b"}" * 2000)
    with pytest.raises(ConfigError, match="damaged or not safetensors"):
        read_weights(path, KEY)


@pytest.mark.parametrize("name", ["teacher.safetensors", "teacher.pt"])
def test_a_pointer_in_place_of_the_weights(tmp_path: Path, name: str) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(ConfigError, match=r"is a pointer of Git LFS, .*; run `git lfs pull`"):
        read_weights(tmp_path / name, KEY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("fc3.bias"), "missing: fc3.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda w: w.update({"fc3.bias": torch.zeros(11)}), r"fc3.bias is \(11,\) instead of \(10,\)"),
        (lambda w: w["conv1.weight"].fill_(float("nan")), "not finite, first in conv1.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    weights = {name: value.clone() for name, value in LeNet().state_dict().items()}
    change(weights)
    with pytest.raises(ConfigError, match=message):
        load_into(LeNet(), weights, KEY, tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read_weights(tmp_path / "absent.safetensors", KEY)


def test_a_torch_whose_weights_only_can_be_made_to_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = LeNet(image_size=(8, 8)).state_dict()
    torch.save(weights, tmp_path / "teacher.pt")
    save_file(weights, tmp_path / "teacher.safetensors")
    for version in ("2.6.0", "2.11.0+cpu", "2.100.0"):
        monkeypatch.setattr(torch, "__version__", TorchVersion(version))
        assert read_weights(tmp_path / "teacher.pt", KEY).keys() == weights.keys()
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1+cu124"))
    with pytest.raises(ConfigError, match=r"with torch 2.5.1\+cu124, .* use torch 2.6 or newer, or safetensors"):
        read_weights(tmp_path / "teacher.pt", KEY)
    assert read_weights(tmp_path / "teacher.safetensors", KEY).keys() == weights.keys()


def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """Some kilobytes that are a gigabyte of zeros; the same weights compressed by others are read."""
    path = tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(2**24)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert path.stat().st_size < 100_000
    with pytest.raises(ConfigError, match=r"bytes and unpacks to 67,\d{3},\d{3}, and torch.save packs nothing"):
        read_weights(path, "teacher.checkpoint")


@pytest.mark.parametrize("header", [b'{"a":' * 10_000, b'{"w":{"data_offsets":["a","b"]}}', b"[" * 10_000])
def test_headers_that_are_none(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ConfigError, match=r"damaged or not safetensors|is cut off"):
        read_weights(path, "teacher.checkpoint")
    path.write_bytes((2**60).to_bytes(8, "little") + b"{")
    with pytest.raises(ValueError, match="Expecting property name"):
        read_about(path)
