"""Pictures as `data:` URIs: curves as SVG, grids of pseudo-images as small PNG files."""

import base64
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from zskt_dist.errors import one_line
from zskt_dist.figures import drawing, plots
from zskt_dist.figures.drawing import evenly_spaced, for_screens
from zskt_dist.page.parts import Picture
from zskt_dist.tracking.base import Row

log = logging.getLogger(__name__)

_GRIDS = 6
_SIDE = 256
"""Most pixels of a grid's longer side; with a byte each, six grids are 400 KB at most."""
_LARGEST = 2**24
"""Most pixels of a grid that is read: this package makes none so large, and somebody else's may be a trap."""


def figure(make: Callable[[], Figure], text: str, caption: str = "") -> Picture:
    """What `make` draws with Matplotlib, as large as a panel."""
    with for_screens():
        made = make()
        made.set_size_inches(plots.PANEL)
        drawn = drawing.svg(made)
    return Picture(_uri("image/svg+xml", drawn.encode()), text, caption)


def curves(rows: list[Row]) -> Iterator[Picture]:
    """A picture for each kind of number that the history has."""
    for what in plots.measured_panels(rows):
        yield figure(partial(_curves, what, rows), f"{what.unit} over iterations")


def _curves(what: plots.Panel, rows: list[Row]) -> Figure:
    drawn, axes = plots.panel()
    plots.draw_curves(axes, what, rows)
    return drawn


def pseudo_images(grids: Sequence[Path]) -> Iterator[Picture]:
    """Some grids, from the first to the last, made small."""
    for path in evenly_spaced(grids, _GRIDS):
        caption = f"iteration {int(path.stem.rsplit('_', 1)[1]):,}"
        if (content := _small(path)) is not None:
            yield Picture(_uri("image/png", content), f"pseudo-images, {caption}", caption, pixels=True)


def _small(path: Path) -> bytes | None:
    """A PNG file with a byte for each pixel; None, with a warning, where it cannot be read."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _LARGEST:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels")
            whole = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        log.warning("the page lacks %s: %s", path, one_line(error))
        return None
    whole.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    red, green, blue = whole.split()
    grey = red.tobytes() == green.tobytes() == blue.tobytes()
    buffer = io.BytesIO()
    (red if grey else whole.quantize(256, Image.Quantize.FASTOCTREE)).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
