from contextlib import suppress
from pathlib import Path

import pytest
import torch

from zskt_dist.models import ImageShape, LeNet, NetworkError, WideResNet, build_network, is_user_code, registry
from zskt_dist.models.registry import KNOWN, ask

GRAY = ImageShape(1, 8, 8)


@pytest.mark.parametrize(
    ("arch", "same"),
    [
        ("wrn-10-1", lambda: WideResNet(10, 1, in_channels=3, num_classes=7)),
        ("wrn-16-2", lambda: WideResNet(16, 2, in_channels=3, num_classes=7)),
        ("lenet", lambda: LeNet(in_channels=3, num_classes=7, image_size=(12, 16))),
        ("lenet-1", lambda: LeNet(in_channels=3, num_classes=7, image_size=(12, 16))),
        ("lenet-3", lambda: LeNet(in_channels=3, num_classes=7, image_size=(12, 16), width=3)),
    ],
)
def test_names(arch: str, same: type) -> None:
    """The same network, drawn from the same random state."""
    torch.manual_seed(5)
    built = build_network(arch, ImageShape(3, 12, 16), 7)
    torch.manual_seed(5)
    expected = same()
    assert type(built) is type(expected)
    assert built.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(built.state_dict()[name], value)
    assert built(torch.randn(2, 3, 12, 16)).shape == (2, 7)


@pytest.mark.parametrize(
    "arch", ["", "wrn", "wrn-16", "wrn-16-1-1", "WRN-16-1", "wrn-16-1 ", "xwrn-16-1", "lenet-", "lenet5", "resnet50"]
)
def test_unknown_names(arch: str) -> None:
    with pytest.raises(ValueError, match="unknown architecture") as caught:
        build_network(arch, GRAY, 10)
    assert KNOWN in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "problem"),
    [("wrn-17-1", "got 17"), ("wrn-4-1", "got 4"), ("wrn-16-0", "at least 1, got 0"), ("lenet-0", "at least 1")],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_impossible_numbers(arch: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build_network(arch, GRAY, 10)


def test_options_are_keyword_arguments() -> None:
    assert build_network("lenet", GRAY, 10, {"width": 3}).conv1.out_channels == 18
    assert build_network("resnet18", GRAY, 10, {"channels": 2}).fc.in_features == 16


def test_near_names_are_suggested() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'resnet18'"):
        build_network("resnet-18", GRAY, 10)


def test_what_is_named_in_another_way_is_said_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text("raise RuntimeError('not to be run for a message')")
    with pytest.raises(ValueError, match=r"did you mean 'my_nets:Teacher'\?"):
        build_network("my_nets.Teacher", GRAY, 10)
    with pytest.raises(ValueError, match=r"unknown architecture; known are"):
        build_network("no_nets_there.Teacher", GRAY, 10)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"is a folder, .* write a function that returns what its from_pretrained loads"
    ):
        build_network("saved/", GRAY, 10)


def test_images_too_small_for_lenet() -> None:
    with pytest.raises(ValueError, match="at least 8x8, got 7x8"):
        build_network("lenet", ImageShape(1, 7, 8), 10)


@pytest.mark.parametrize(
    "arch", ["lenet", "timm:x", "hub:x", "torchvision:x", "timm.evil:make", "Timm:x", "os:system", ":"]
)
def test_only_what_is_known_as_code_of_the_user_is_imported(monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    """What `load_network` asks before it builds is what `build_network` goes by."""
    imported: list[str] = []
    monkeypatch.setattr(registry, "_LIBRARIES", dict.fromkeys(("timm", "hub"), lambda *_: torch.nn.Linear(1, 1)))
    monkeypatch.setattr(registry, "from_import_path", lambda path, *_: imported.append(path))
    with suppress(NetworkError):
        build_network(arch, GRAY, 10)
    assert is_user_code(arch) == (imported == [arch])
    assert is_user_code(arch) == (arch not in ("lenet", "timm:x", "hub:x"))


def test_a_network_without_parameters_is_asked_like_any_other() -> None:
    network = torch.nn.Flatten()
    ask(network, GRAY)
    assert network.training
