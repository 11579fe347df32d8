"""What weights say of a teacher's classes and images, for networks of all origins."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.support.odd_networks import Usual
from zskt_dist.config import Config, config_of
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.sizes import Sizes, answered_classes, sizes_in
from zskt_dist.networks.weights import WeightsFile

MINE = "tests.support.odd_networks"
USERS = "tests.support.user_networks"


def _saved(folder: Path, network: nn.Module) -> WeightsFile:
    torch.save({"state_dict": network.state_dict()}, folder / "t.pt")
    return WeightsFile.open(folder / "t.pt", "teacher.checkpoint")


def _config(arch: str, **more: object) -> Config:
    return config_of({"teacher.arch": arch, "teacher.checkpoint": "t.pt", "data.name": "none", **more})


@pytest.mark.parametrize(
    ("arch", "shape", "classes", "sides"),
    [
        ("wrn-10-1", ImageShape(4, 20, 12), 7, None),
        ("resnet18", ImageShape(1, 28, 28), 3, None),
        ("vgg11", ImageShape(3, 32, 32), 100, None),
        ("lenet", ImageShape(1, 28, 28), 10, (28, 28)),
        ("lenet-2", ImageShape(3, 32, 32), 13, (32, 32)),
        ("lenet", ImageShape(1, 8, 8), 977, (8, 8)),
    ],
)
def test_our_own_networks(
    arch: str, shape: ImageShape, classes: int, sides: tuple[int, int] | None, tmp_path: Path
) -> None:
    file = _saved(tmp_path, build_network(arch, shape, classes))
    assert sizes_in(_config(arch), file) == Sizes(classes if classes != 977 else None, shape.channels, sides)


@pytest.mark.parametrize(
    ("arch", "shape", "classes", "sides"),
    [
        ("torchvision:mobilenet_v3_small", ImageShape(1, 28, 28), 7, None),
        ("timm:resnet18", ImageShape(3, 224, 224), 12, None),
        ("timm:vit_tiny_patch16_224", ImageShape(3, 96, 96), 12, (96, 96)),
    ],
)
def test_networks_of_libraries(
    arch: str, shape: ImageShape, classes: int, sides: tuple[int, int] | None, tmp_path: Path
) -> None:
    pytest.importorskip(arch.partition(":")[0])
    file = _saved(tmp_path, build_network(arch, shape, classes))
    assert sizes_in(_config(arch), file) == Sizes(classes, shape.channels, sides)


def test_code_of_the_user(tmp_path: Path) -> None:
    file = _saved(tmp_path, Usual(num_classes=5, in_channels=2))
    config = _config(f"{MINE}:Usual")
    assert sizes_in(config, file) == Sizes(5, 2, None)
    assert answered_classes(config, ImageShape(2, 9, 9), 5, file) == 5


def test_code_that_takes_no_number_answers_it(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    config = _config(f"{USERS}:two_classes")
    file = _saved(tmp_path, network)
    assert sizes_in(config, file) == Sizes(None, None, None)
    assert answered_classes(config, ImageShape(1, 8, 8), None, file) == 2
    assert answered_classes(config, ImageShape(4, 4, 4), None, file) == 2, "it flattens them"
    with pytest.raises(ConfigError, match="cannot take images of 1x9x9"):
        answered_classes(config, ImageShape(1, 9, 9), None, file)


def test_weights_that_fit_for_no_images_are_refused_at_once(tmp_path: Path) -> None:
    file = _saved(tmp_path, build_network("wrn-10-2", ImageShape(3, 32, 32), 10))
    with pytest.raises(
        ConfigError, match=r"does not fit the architecture; .*group1.0.conv1.weight is \(32, 16, 3, 3\)"
    ):
        sizes_in(_config("wrn-10-1"), file)
    with pytest.raises(ConfigError, match="does not fit the architecture"):
        sizes_in(_config("lenet"), _saved(tmp_path, build_network("lenet-2", ImageShape(1, 28, 28), 10)))
    twice = _saved(tmp_path, nn.ModuleDict({"model": Usual(), "ema_model": Usual()}))
    with pytest.raises(ConfigError, match="more than once, below"):
        sizes_in(_config(f"{MINE}:Usual"), twice)


def test_unusual_sides_are_left_to_the_user(tmp_path: Path) -> None:
    """LeNet's first linear layer depends on the sides, and no usual ones have 10x16 left of them."""
    file = _saved(tmp_path, build_network("lenet", ImageShape(1, 40, 64), 10))
    assert sizes_in(_config("lenet"), file) == Sizes(10, 1, None)
    assert answered_classes(_config("lenet"), ImageShape(1, 40, 64), 10, file) == 10
    with pytest.raises(ConfigError, match=r"fc1\.weight"):
        answered_classes(_config("lenet"), ImageShape(1, 32, 32), 10, file)


def test_what_is_not_known(tmp_path: Path) -> None:
    file = _saved(tmp_path, Usual())
    for arch, message in (
        (f"{MINE}:Unusual", "has no 'Unusual'; did you mean 'Usual'"),
        ("no_such_module:Net", "there is no module 'no_such_module'"),
        ("resnet19", "unknown architecture"),
        (f"{USERS}:broken", "cannot be built"),
    ):
        with pytest.raises(ConfigError, match=message):
            sizes_in(_config(arch), file)


def test_code_that_has_weights_for_one_number_of_classes_only(tmp_path: Path) -> None:
    """As a callable does that loads a file: then the number has to be asked for."""
    file = tmp_path / "w.safetensors"
    save_file(build_network("lenet", ImageShape(1, 8, 8), 7).state_dict(), file)
    config = _config(f"{USERS}:Brought", **{"teacher.options": {"path": str(file)}, "teacher.checkpoint": "none"})
    assert sizes_in(config, None) == Sizes()
    shape = ImageShape(1, 8, 8)
    assert answered_classes(config, shape, None, None) is None
    assert answered_classes(config, shape, 7, None) == 7
    with pytest.raises(ConfigError, match="size mismatch"):
        answered_classes(config, shape, 8, None)
