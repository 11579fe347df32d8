"""Grids of pseudo-images as PNG files."""

import io
from pathlib import Path

import torch
from torch import Tensor

from zskt_dist.files import write_atomic

_BORDER = 2
"""Width of the black border between and around images, in pixels."""


def save_image_grid(images: Tensor, path: Path) -> None:
    """Saves images [N, C, H, W] of any range; each is stretched to black … white, and small ones are enlarged.

    Three channels are shown as colours. Of more channels the first three are shown, of two the first.
    """
    images = images.detach().float().cpu()
    images = images[:, : 3 if images.shape[1] > 2 else 1]
    factor = max(1, 48 // max(images.shape[2:]))
    images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    low, high = (extreme(images, dim=(1, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    pixels = ((images - low) / (high - low).clamp(min=1e-5) * 255 + 0.5).clamp(0, 255).to(torch.uint8)

    from PIL import Image  # late: training does without

    buffer = io.BytesIO()
    Image.fromarray(_grid(pixels, columns=round(len(pixels) ** 0.5)).permute(1, 2, 0).numpy()).save(buffer, "png")
    write_atomic(path, buffer.getvalue())


def _grid(pixels: Tensor, columns: int) -> Tensor:
    """[N, 1 or 3, H, W] as one picture [3, height, width], row by row, with black borders; a single image has none."""
    if len(pixels) == 1:
        return pixels[0].expand(3, -1, -1)
    height, width = (size + _BORDER for size in pixels.shape[2:])
    grid = pixels.new_zeros(3, -(-len(pixels) // columns) * height + _BORDER, columns * width + _BORDER)
    for place, image in enumerate(pixels):
        top, left = place // columns * height, place % columns * width
        grid[:, top : top + height, left : left + width][:, _BORDER:, _BORDER:] = image
    return grid
