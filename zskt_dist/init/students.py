"""Students that fit a teacher, by one rule.

A student that fits can take the images, and has fewer parameters and less work than its teacher. The best one has a
tenth to a quarter of the parameters, as near to a sixth as possible, and at most half of the work. Among those, Wide
ResNets and, for gray images up to 32 pixels, LeNets go before networks made for large images, which see a small one as
one pixel in their last layers; for images from 64 pixels on it is the other way round, as Wide ResNets keep the images'
full size in a third of their layers. Where none is so small, the nearest to a sixth with at most half of the work is
taken, else the nearest of all.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, product
from typing import NamedTuple

from rich.table import Table

from zskt_dist.config import Config
from zskt_dist.errors import ConfigError
from zskt_dist.extras import lacking
from zskt_dist.models import ImageShape, count_parameters
from zskt_dist.networks.building import outlines
from zskt_dist.speed import multiply_adds

_FEWEST, _SOUGHT, _MOST = 1 / 10, 1 / 6, 1 / 4
"""Share of the teacher's parameters: the least and the most of the best students, and what they are nearest to."""
_WORK = 0.5
"""Most work of the best students, as a share of the teacher's."""
_LARGE, _GRAY = 64, 32
"""Pixels of the shorter side from which images count as large, and up to which LeNets are taken for gray ones."""
_SHOWN = 3

_LENETS = ("lenet", "lenet-2")
_WIDE = tuple(
    f"wrn-{depth}-{width}"
    for depth, width in sorted(product((10, 16, 28, 40), (1, 2, 4, 8)), key=lambda each: (each[0] - 4) * each[1] ** 2)
)
_LIBRARIES = (
    *("torchvision:shufflenet_v2_x0_5", "timm:mobilenetv3_small_050", "torchvision:shufflenet_v2_x1_0"),
    *("torchvision:mobilenet_v3_small", "torchvision:mobilenet_v2", "torchvision:mobilenet_v3_large"),
    *("torchvision:resnet18", "torchvision:resnet50"),
)
"""Families of networks, each by size."""


class Size(NamedTuple):
    """Of a network: its number of parameters, and multiply-adds of its linear and convolutional layers for an image."""

    arch: str
    parameters: int
    multiply_adds: int


class Choice(NamedTuple):
    """The student that fits best, None where none does, and up to three that fit with it, by size."""

    best: Size | None
    fitting: list[Size]


def size_of(config: Config, image_shape: ImageShape, num_classes: int) -> Size:
    """The size of `config.student`; raises ConfigError where it cannot be built, take the images or answer logits."""
    network = outlines(config, ["student"], image_shape, num_classes)["student"]
    return Size(config.student.arch, count_parameters(network), multiply_adds(network, image_shape))


def choose(teacher: Size, config: Config, image_shape: ImageShape, num_classes: int) -> Choice:
    """The student that fits a teacher best, and its neighbours in size.

    Args:
        config: Of the teacher; its student does not count.
    """
    fitting: list[tuple[tuple[bool, bool, int, float], Size]] = []
    for group, families in enumerate(_groups(image_shape)):
        for size in chain(*(_smaller(family, teacher, config, image_shape, num_classes) for family in families)):
            if size.multiply_adds <= (teacher.multiply_adds or math.inf):
                fitting.append((_rank(size, teacher, group), size))
        if any(not misses for (misses, *_), _ in fitting):
            break  # no later group goes before it, and to import a library takes seconds
    if not fitting:
        return Choice(None, [])
    ranked = [size for _, size in sorted(fitting)]
    return Choice(ranked[0], _neighbours(ranked))


def _groups(image_shape: ImageShape) -> Iterator[list[Sequence[str]]]:
    """Families that are tried together, those first that suit the size of the images."""
    side = min(image_shape.height, image_shape.width)
    own: list[Sequence[str]] = [*([_LENETS] if image_shape.channels == 1 and side <= _GRAY else []), _WIDE]
    installed: list[Sequence[str]] = [[arch for arch in _LIBRARIES if not lacking(arch.partition(":")[0])]]
    yield from (installed, own) if side >= _LARGE else (own, installed)


def _smaller(
    family: Sequence[str], teacher: Size, config: Config, image_shape: ImageShape, num_classes: int
) -> Iterator[Size]:
    """Those of a family that can take the images, up to the first that is no smaller than the teacher."""
    for arch in family:
        student = config.student.model_copy(update={"arch": arch, "options": {}, "output": None})
        with suppress(ConfigError):  # it cannot take such images
            size = size_of(config.model_copy(update={"student": student}), image_shape, num_classes)
            if size.parameters >= teacher.parameters:
                return
            yield size


def _rank(size: Size, teacher: Size, group: int) -> tuple[bool, bool, int, float]:
    """The lowest is the best."""
    share = size.parameters / teacher.parameters
    busy = bool(teacher.multiply_adds) and size.multiply_adds > _WORK * teacher.multiply_adds
    distance = abs(math.log(share / _SOUGHT))
    return busy or not _FEWEST <= share <= _MOST, busy, group, distance


def _neighbours(ranked: list[Size]) -> list[Size]:
    """The best one, the next smaller and the next larger one, and by rank where there is no such; by size."""
    best = ranked[0]
    smaller = [each for each in ranked if each.parameters < best.parameters]
    larger = [each for each in ranked if each.parameters > best.parameters]
    near = [max(smaller, key=lambda each: each.parameters)] if smaller else []
    near += [min(larger, key=lambda each: each.parameters)] if larger else []
    shown = dict.fromkeys([best, *near, *ranked])
    return sorted([*shown][:_SHOWN], key=lambda each: each.parameters)


def table_of(teacher: Size, students: list[Size], best: Size | None) -> Table:
    """The teacher and students with their sizes and work."""
    table = Table(title=f"Students that fit{', the recommended one with a star' * bool(best)}", title_justify="left")
    for column in ("", "network", "parameters", "multiply-adds"):
        table.add_column(column, justify="left" if column in ("", "network") else "right", no_wrap=column == "network")
    table.add_row("teacher", teacher.arch, f"{teacher.parameters:,}", f"{teacher.multiply_adds / 1e6:,.1f} M")
    for each in students:
        parameters, work = share_of(each.parameters, teacher.parameters), share_of(*_work(each, teacher))
        table.add_row(
            "*" if each is best else "",
            each.arch,
            f"{each.parameters:,} ({parameters})",
            f"{each.multiply_adds / 1e6:,.1f} M ({work})",
        )
    return table


def _work(size: Size, teacher: Size) -> tuple[int, int]:
    return size.multiply_adds, teacher.multiply_adds


def share_of(part: int, whole: int) -> str:
    """`14 %`, with a decimal where it is less than ten; `-` of nothing."""
    return f"{100 * part / whole:.{0 if 10 * part >= whole else 1}f} %" if whole else "-"
