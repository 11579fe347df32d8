"""What all figures share; Matplotlib draws into memory here, whatever screen there is."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    plt.close(figure)
    return buffer.getvalue()


def evenly_spaced(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, from the first to the last."""
    count = min(len(items), most)
    return [items[round(i * (len(items) - 1) / max(1, count - 1))] for i in range(count)]
