"""The student that fits: a tenth to a quarter of the parameters, and at most half of the work."""

import pytest

from zskt_dist.config import Config, config_of
from zskt_dist.errors import ConfigError
from zskt_dist.init import students
from zskt_dist.init.students import Choice, Size, choose, share_of, size_of
from zskt_dist.models import ImageShape

COLOUR, GRAY, PHOTO = ImageShape(3, 32, 32), ImageShape(1, 28, 28), ImageShape(3, 224, 224)


def _size(arch: str, shape: ImageShape, classes: int = 10) -> Size:
    return size_of(config_of({"student.arch": arch}), shape, classes)


def _choice(arch: str, shape: ImageShape, classes: int = 10) -> Choice:
    return choose(_size(arch, shape, classes), Config(), shape, classes)


def test_the_size_of_a_network() -> None:
    """LeNet-5 on 28x28: 6 and 16 filters of 5x5 on 28x28 and 14x14, then 784 x 120, 120 x 84, 84 x 10."""
    weights = 6 * 25, 16 * 6 * 25, 784 * 120, 120 * 84, 84 * 10
    work = weights[0] * 28 * 28 + weights[1] * 14 * 14 + sum(weights[2:])
    assert _size("lenet", GRAY) == ("lenet", sum(weights) + 6 + 16 + 120 + 84 + 10, work)


@pytest.mark.parametrize(
    ("arch", "shape", "best"),
    [
        ("wrn-16-2", COLOUR, "wrn-10-1"),  # 11 % of the parameters; wrn-16-1 has 25.3 %
        ("wrn-40-2", COLOUR, "wrn-28-1"),  # 16 %
        ("wrn-16-1", GRAY, "wrn-10-1"),  # none has a tenth to a quarter; with 44 % it is nearer than LeNet with 62 %
        ("wrn-16-2", GRAY, "lenet"),  # 16 %
        ("resnet18", COLOUR, "wrn-28-2"),  # 13 %
    ],
)
def test_students_of_small_images(arch: str, shape: ImageShape, best: str) -> None:
    found = _choice(arch, shape).best
    assert found is not None
    assert found.arch == best


def test_where_no_student_is_smaller_there_is_none() -> None:
    assert choose(Size("mine:Tiny", 300, 40_000), Config(), GRAY, 10) == (None, [])


def test_three_are_shown_by_size() -> None:
    best, fitting = _choice("wrn-40-2", COLOUR)
    assert len(fitting) == 3
    assert best in fitting
    assert [each.parameters for each in fitting] == sorted(each.parameters for each in fitting)
    teacher = _size("wrn-40-2", COLOUR)
    assert all(each.parameters < teacher.parameters for each in fitting)
    assert all(each.multiply_adds <= teacher.multiply_adds for each in fitting)


def test_a_busy_student_gives_way_to_a_quick_one() -> None:
    """A teacher with as many parameters, and a tenth of the work: Wide ResNets of a sixth would be slower than it."""
    pytest.importorskip("torchvision")
    teacher = _size("torchvision:resnet18", COLOUR)
    assert teacher.multiply_adds < _size("wrn-28-2", COLOUR).multiply_adds
    best, _ = choose(teacher, Config(), COLOUR, 10)
    assert best is not None
    assert best.multiply_adds <= teacher.multiply_adds / 2
    assert best.arch == "torchvision:mobilenet_v2"
    assert 0.1 <= best.parameters / teacher.parameters <= 0.25


def test_large_images_get_a_network_made_for_them() -> None:
    pytest.importorskip("torchvision")
    best, fitting = _choice("torchvision:resnet18", PHOTO, 1000)
    assert best is not None
    assert all(":" in each.arch for each in fitting)
    teacher = _size("torchvision:resnet18", PHOTO, 1000)
    assert 0.1 <= best.parameters / teacher.parameters <= 0.25
    assert best.multiply_adds <= teacher.multiply_adds / 2


def test_without_the_libraries_there_are_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "lacking", lambda *modules: "needs timm")
    best, fitting = choose(Size("mine:Net", 11_000_000, 1_800_000_000), Config(), PHOTO, 10)
    assert best is not None
    assert all(":" not in each.arch for each in fitting)


def test_what_cannot_take_the_images_is_no_candidate() -> None:
    """LeNet needs 8x8."""
    best, fitting = choose(Size("mine:Net", 1_000_000, 10_000_000), Config(), ImageShape(1, 6, 6), 10)
    assert best is not None
    assert all(each.arch.startswith("wrn") for each in fitting)
    with pytest.raises(ConfigError, match=r"student.arch='lenet'"):
        _size("lenet", ImageShape(1, 6, 6))


@pytest.mark.parametrize(("part", "whole", "text"), [(1, 2, "50 %"), (1, 300, "0.3 %"), (10, 100, "10 %"), (3, 0, "-")])
def test_shares(part: int, whole: int, text: str) -> None:
    assert share_of(part, whole) == text
