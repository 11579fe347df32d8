"""Grids of pseudo-images with any number of channels and any shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zskt_dist.tracking.images import save_image_grid


def _pixels(images: torch.Tensor, path: Path) -> np.ndarray:
    save_image_grid(images, path)
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_four_images_in_two_columns_with_borders_of_two(channels: int, tmp_path: Path) -> None:
    pixels = _pixels(torch.rand(4, channels, 50, 60), tmp_path / "grid.png")
    assert pixels.shape == (2 * 52 + 2, 2 * 62 + 2, 3)


def test_small_images_are_enlarged_alike_in_both_directions(tmp_path: Path) -> None:
    assert _pixels(torch.rand(2, 1, 9, 24), tmp_path / "grid.png").shape == (2 * (2 * 9 + 2) + 2, 2 * 24 + 4, 3)


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (2, 1), (5, 3), (9, 3), (16, 1)])
def test_grids_are_those_of_torchvision(count: int, channels: int, tmp_path: Path) -> None:
    utils = pytest.importorskip("torchvision.utils")
    images = torch.randn(count, channels, 50, 60)
    images[-1, :, :, 30:] = 0.5
    if count > 1:
        images[0] = 0.5  # of one colour: there is nothing to stretch
    pixels = _pixels(images, tmp_path / "ours.png")
    grid = utils.make_grid(images, nrow=round(count**0.5), normalize=True, scale_each=True, padding=2)
    utils.save_image(grid, tmp_path / "theirs.png")
    assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / "theirs.png")))


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 127, 255]), (4, [0, 127, 255])]
)
def test_which_channels_are_colours(channels: int, shown: list[int], tmp_path: Path) -> None:
    """Channel c holds c; the last pixel holds 2 everywhere, so that 0 is black and 2 white."""
    images = torch.arange(float(channels)).view(1, channels, 1, 1).expand(1, channels, 48, 48).clone()
    images[..., -1, -1] = 2
    pixels = _pixels(images, tmp_path / "grid.png")
    assert pixels[10, 10].tolist() == pytest.approx(shown, abs=1)
    assert pixels[47, 47].tolist() == [255, 255, 255]
