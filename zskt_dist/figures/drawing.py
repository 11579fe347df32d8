"""What all figures share; Matplotlib draws into memory here, whatever screen there is."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    plt.close(figure)
    return buffer.getvalue()


_INK = "#010203"
"""Stands for the colour of texts and lines, which the reader's light or dark screen decides."""
_ADAPTS = "<style>svg{--ink:#1f2328}@media(prefers-color-scheme:dark){svg{--ink:#dfe5ec}}</style>"
# Middle tones, which are seen on white and on black; blue and orange first, which colour-blind readers tell apart.
_COLOURS = ("#3a86d8", "#e08a2e", "#2fa583", "#b06fd1", "#d65f5f")
_STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    "axes.prop_cycle": cycler(color=_COLOURS),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.titlesize": 10,
    "legend.fontsize": 8.5,
}


@contextmanager
def for_screens() -> Iterator[None]:
    """Within, figures are made that suit light and dark screens, for `svg`."""
    with plt.style.context(_STYLE):
        yield


def svg(figure: Figure) -> str:
    """The figure as an SVG file without a background, the same each time; it is closed.

    Its texts are texts, so it is small and sharp; of one made `for_screens` they follow the reader's colour scheme.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "zskt_dist", "svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(figure)
    drawn = buffer.getvalue()
    start = drawn.index(">", drawn.index("<svg")) + 1
    return drawn[:start] + _ADAPTS + drawn[start:].replace(_INK, "var(--ink)")


def evenly_spaced(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, from the first to the last."""
    count = min(len(items), most)
    return [items[round(i * (len(items) - 1) / max(1, count - 1))] for i in range(count)]
