"""Grids of pseudo-images as PNG files."""

import io
from pathlib import Path

from torch import Tensor

from zskt_dist.files import write_atomic


def save_image_grid(images: Tensor, path: Path) -> None:
    """Images [N, C, H, W] of any range, each stretched to black … white, small ones enlarged to stay visible.

    Three channels are colours; of more the first three are, and two are shown as the first alone.
    """
    images = images.detach().float().cpu()
    images = images[:, : 3 if images.shape[1] > 2 else 1]
    factor = max(1, 48 // max(images.shape[2:]))
    images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    from torchvision.utils import make_grid, save_image  # late: training does without

    buffer = io.BytesIO()
    columns = round(len(images) ** 0.5)
    save_image(make_grid(images, nrow=columns, normalize=True, scale_each=True, padding=2), buffer, format="png")
    write_atomic(path, buffer.getvalue())
