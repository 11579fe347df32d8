"""A run in one picture: what the generator drew, and how alike the student became meanwhile."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from zskt_dist.figures.drawing import evenly_spaced
from zskt_dist.tracking.base import Row

_GRIDS = 4
_CURVES = {
    "agreement": "agreement with the teacher on test images",
    "yardstick_agreement": "agreement on the yardstick (no real image)",
    "accuracy": "accuracy on test images",
}


def overview(rows: list[Row], grids: list[Path]) -> Figure | None:
    """Pseudo-images at four moments beside agreement and accuracy; None where one of them is missing.

    Args:
        rows: Of the run's history.
        grids: Pictures of pseudo-images, whose names end in their iteration, in order.
    """
    curves = {
        label: [(row["iteration"], 100 * row[name]) for row in rows if name in row] for name, label in _CURVES.items()
    }
    if not grids or not any(curves.values()):
        return None
    chosen = evenly_spaced(grids, _GRIDS)
    figure = plt.figure(figsize=(2.1 * len(chosen) + 5, 2.7), constrained_layout=True)
    columns = figure.add_gridspec(1, len(chosen) + 1, width_ratios=[1] * len(chosen) + [2.2])
    for column, path in enumerate(chosen):
        axes = figure.add_subplot(columns[column])
        axes.imshow(plt.imread(path), cmap="gray")
        axes.set_title(f"iteration {int(path.stem.rsplit('_', 1)[1]):,}", fontsize=9)
        axes.axis("off")
    axes = figure.add_subplot(columns[-1])
    for label, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=label)
    axes.set(xlabel="iteration", ylabel="%", ylim=(0, 101))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure
