"""Figures of one run, drawn from its directory."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from zskt_dist.files import write_atomic
from zskt_dist.runtime.directory import RunDirectory
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.local import read_history

_STRIP_COLUMNS = 8


def draw_run(directory: RunDirectory) -> None:
    """Writes `training.png` and, where there are grids of pseudo-images, `pseudo_images.png` (Figure 3)."""
    rows = read_history(directory.history)
    if rows:
        _save(_training_curves(rows), directory.figures / "training.png")
    grids = sorted(directory.figures.glob("pseudo_images_*.png")) if directory.figures.is_dir() else []
    if grids:
        _save(_over_training(grids), directory.figures / "pseudo_images.png")


def _training_curves(rows: list[Row]) -> Figure:
    """Scores on the left, losses (log scale) on the right, over iterations."""
    figure, (scores, losses) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    panels = ((scores, ("accuracy", "agreement", "train_accuracy")), (losses, ("kl", "attention", "loss")))
    for axes, names in panels:
        for name in names:
            points = [(row["iteration"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    scores.set_ylabel("fraction")
    if any(line.get_ydata().min() > 0 for line in losses.lines):
        losses.set_yscale("log")
    losses.set_ylabel("loss")
    return figure


def _over_training(grids: list[Path]) -> Figure:
    """Up to eight grids from the first to the last, evenly spaced."""
    count = min(len(grids), _STRIP_COLUMNS)
    chosen = [grids[round(i * (len(grids) - 1) / max(1, count - 1))] for i in range(count)]
    figure, panels = plt.subplots(1, count, figsize=(2.6 * count, 2.9), constrained_layout=True, squeeze=False)
    for axes, path in zip(panels[0], chosen, strict=True):
        axes.imshow(plt.imread(path))
        axes.set_title(f"iteration {int(path.stem.rsplit('_', 1)[1]):,}", fontsize=9)
        axes.axis("off")
    return figure


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    plt.close(figure)
    write_atomic(path, buffer.getvalue())
