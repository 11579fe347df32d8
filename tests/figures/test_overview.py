"""A run in one picture, only where there is something to show in both halves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zskt_dist.figures.drawing import png
from zskt_dist.figures.overview import overview
from zskt_dist.tracking.base import Row

ROWS: list[Row] = [{"iteration": i, "yardstick_agreement": i / 40} for i in (10, 20, 30)]


@pytest.fixture
def grids(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"pseudo_images_{i:08}.png" for i in range(10, 70, 10)]
    for path in paths:
        Image.fromarray(np.full((16, 16), 128, np.uint8)).save(path)
    return paths


def test_four_moments_beside_what_was_measured(grids: list[Path]) -> None:
    figure = overview(ROWS, grids)
    assert figure is not None
    *pictures, curves = figure.axes
    assert [axes.get_title() for axes in pictures] == [f"iteration {i}" for i in (10, 30, 40, 60)]
    (line,) = curves.lines  # no empty line for what was not measured
    assert [tuple(point) for point in line.get_xydata()] == [(10, 25.0), (20, 50.0), (30, 75.0)]
    assert png(figure).startswith(b"\x89PNG")


def test_half_a_picture_is_none(grids: list[Path]) -> None:
    assert overview(ROWS, []) is None
    assert overview([{"iteration": 1, "kl": 0.1}], grids) is None
