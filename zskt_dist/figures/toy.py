"""Figure 1: decision maps of the teacher and of the student over time, with the pseudo points."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from PIL import Image
from torch import Tensor

from zskt_dist.algorithms.toy import SIDE, Snapshot
from zskt_dist.figures.drawing import evenly_spaced, png
from zskt_dist.files import write_atomic

# Colour-blind safe (Okabe and Ito), pale enough for points to show.
_CLASSES = ListedColormap(["#9ecae9", "#f7d08a", "#a8d8b9"])
_COLUMNS = 6


def draw_toy(snapshots: Sequence[Snapshot], teacher_map: Tensor, data: tuple[Tensor, Tensor], folder: Path) -> None:
    """Writes `figure1.png` and `figure1.gif`."""
    write_atomic(folder / "figure1.png", _strip(snapshots, teacher_map, data))
    frames = [_frame(snapshot, teacher_map) for snapshot in snapshots]
    buffer = io.BytesIO()
    durations = [250] * (len(frames) - 1) + [2500]
    frames[0].save(buffer, format="gif", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    write_atomic(folder / "figure1.gif", buffer.getvalue())


def _strip(snapshots: Sequence[Snapshot], teacher_map: Tensor, data: tuple[Tensor, Tensor]) -> bytes:
    """Teacher above, student below, from left to right over training; the data only in the first teacher's panel."""
    chosen = evenly_spaced(snapshots, _COLUMNS)
    columns = len(chosen) + 1
    figure, panels = plt.subplots(2, columns, figsize=(2.1 * columns, 4.5), constrained_layout=True)
    x, label = data
    _map(panels[0][0], teacher_map)
    panels[0][0].scatter(x[:, 0], x[:, 1], c=label, cmap="cividis", s=1)
    panels[0][0].set_title("teacher and its data", fontsize=9)
    panels[1][0].axis("off")
    for column, snapshot in enumerate(chosen, start=1):
        for row, classes in enumerate((teacher_map, snapshot.student_map)):
            _map(panels[row][column], classes)
            panels[row][column].scatter(*snapshot.points.T, c="black", s=7, linewidths=0)
        panels[0][column].set_title(f"round {snapshot.round:,}", fontsize=9)
        panels[1][column].set_xlabel(f"agreement {snapshot.agreement:.0%}", fontsize=8)
    panels[0][1].set_ylabel("teacher")
    panels[1][1].set_ylabel("student")
    return png(figure)


def _frame(snapshot: Snapshot, teacher_map: Tensor) -> Image.Image:
    figure, panels = plt.subplots(1, 2, figsize=(5, 2.8), constrained_layout=True)
    for axes, classes, name in zip(panels, (teacher_map, snapshot.student_map), ("teacher", "student"), strict=True):
        _map(axes, classes)
        axes.scatter(*snapshot.points.T, c="black", s=8, linewidths=0)
        axes.set_title(name, fontsize=9)
    figure.suptitle(f"round {snapshot.round:,}: agreement {snapshot.agreement:.0%}", fontsize=10)
    return Image.open(io.BytesIO(png(figure, dpi=80))).convert("P", palette=Image.Palette.ADAPTIVE)


def _map(axes: Axes, classes: Tensor) -> None:
    extent = (-SIDE, SIDE, -SIDE, SIDE)
    axes.imshow(classes, origin="lower", extent=extent, cmap=_CLASSES, vmin=0, vmax=2, interpolation="nearest")
    axes.set(xticks=[], yticks=[], xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE))
