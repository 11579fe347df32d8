"""The figures of one run, with Matplotlib."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zskt_dist.figures.drawing import evenly_spaced, png
from zskt_dist.files import write_atomic
from zskt_dist.tracking.base import Row

_STRIP_COLUMNS = 8
PANEL = (4.6, 3.1)
"""Inches of a figure that can be read on a phone."""
_POINTS = 500
"""Most of a curve: more cannot be told apart."""


class Panel(NamedTuple):
    """Curves with one unit."""

    names: dict[str, str]
    """What the history calls them, and people."""
    unit: str
    logarithmic: bool


_MAY_BE_0 = ("accuracy", "agreement", "yardstick_agreement", "train_accuracy")
_PANELS = (
    Panel(
        {
            "accuracy": "accuracy",
            "agreement": "agreement",
            "yardstick_agreement": "agreement on the yardstick",
            "train_accuracy": "accuracy on training images",
        },
        "fraction",
        logarithmic=False,
    ),
    Panel({"kl": "KL(teacher || student)", "attention": "attention maps", "loss": "loss"}, "loss", logarithmic=True),
)


def transitions(curves: dict[str, list[float]], mte: dict[str, Any]) -> Figure:
    """Mean p_j of both networks with ± 2 standard errors."""
    figure, axes = plt.subplots(figsize=(5.5, 4), constrained_layout=True)
    other = "teacher" if mte["stepped"] == "student" else "student"
    for name, label in (("p_a", f"{mte['stepped']} (stepped)"), ("p_b", other)):
        mean, error = np.array(curves[name]), np.array(curves[f"{name}_standard_error"])
        axes.plot(mean, label=label)
        axes.fill_between(range(len(mean)), mean - 2 * error, mean + 2 * error, alpha=0.3)
    axes.set(xlabel="adversarial steps", ylabel="mean probability of the target class", ylim=(0, 1))
    axes.set_title(f"MTE {mte['value']:.3f}, K = {mte['steps']}, ξ = {mte['step_size']:g}, N = {mte['images']}")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def calibration(values: dict[str, Any]) -> Figure:
    """Reliability: how often a network is right, by its confidence."""
    figure, axes = plt.subplots(figsize=(4.5, 4.2), constrained_layout=True)
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    for name, entry in values.items():
        label = "student against teacher" if name == "agreement" else name
        points = [(one["confidence"], one["accuracy"]) for one in entry["bins"]]
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{label}, ECE {entry['ece']:.3f}")
    axes.set(xlabel="confidence", ylabel="fraction right", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def noise(noise: dict[str, Any]) -> Figure:
    """Shares of predicted classes on uniform noise, one bar per class and network."""
    networks = {name: shares for name, shares in noise.items() if name != "images"}
    figure, axes = plt.subplots(figsize=(6, 3.5), constrained_layout=True)
    width = 0.8 / len(networks)
    for number, (name, shares) in enumerate(networks.items()):
        axes.bar(np.arange(len(shares)) + (number - (len(networks) - 1) / 2) * width, shares, width, label=name)
    axes.set(xlabel="predicted class", ylabel=f"share of {noise['images']:,} noise images")
    axes.legend()
    return figure


def estimates(found: dict[str, Any]) -> Figure:
    """Confidence of both networks, one panel for each source of images, and the quantiles of KL(teacher || student)."""
    sources: dict[str, Any] = found["sources"]
    columns = min(4, len(sources) + 1)
    rows = -(-(len(sources) + 1) // columns)
    size = (3.4 * columns, 2.9 * rows + 0.4)
    figure, grid = plt.subplots(rows, columns, figsize=size, constrained_layout=True, squeeze=False)
    panels = list(grid.flat)
    labels = [_source_label(name, entry) for name, entry in sources.items()]
    for axes, label, entry in zip(panels, labels, sources.values(), strict=False):
        _confidence(axes, label, entry)
    panels[0].legend(fontsize=8)
    _divergences(panels[len(sources)], labels, [entry["kl_quantiles"] for entry in sources.values()])
    for axes in panels[len(sources) + 1 :]:
        axes.axis("off")
    figure.suptitle("Estimates: teacher and student on images that are not real", fontsize=10)
    return figure


def confidence(name: str, entry: dict[str, Any]) -> Figure:
    """Confidence of both networks on one source of images."""
    figure, axes = panel()
    _confidence(axes, _source_label(name, entry), entry)
    axes.legend()
    return figure


def _confidence(axes: Axes, label: str, entry: dict[str, Any]) -> None:
    for who in ("teacher", "student"):
        shares = np.array(entry[who]["confidence_counts"]) / entry["images"]
        edges = np.linspace(0, 1, len(shares) + 1)
        axes.stairs(shares, edges, label=who, fill=who == "teacher", alpha=0.5 if who == "teacher" else 1)
    interval = f"{100 * entry['agreement_low']:.0f} to {100 * entry['agreement_high']:.0f}"
    axes.set_title(f"{label}\nagreement {100 * entry['agreement']:.1f} % ({interval})", fontsize=9)
    axes.set(xlabel="confidence", ylabel="share of images", xlim=(0, 1))


def _divergences(axes: Axes, labels: list[str], quantiles: list[dict[str, float]]) -> None:
    """Median, middle half and 5 to 95 %, one row per source; values below a millionth of a nat look alike."""
    for place, values in enumerate(quantiles):
        low, first, median, third, high = (max(value, 1e-6) for value in values.values())
        axes.plot([low, high], [place, place], color="gray", linewidth=1)
        axes.plot([first, third], [place, place], color="C0", linewidth=5, solid_capstyle="butt")
        axes.plot(median, place, "|", color=plt.rcParams["text.color"], markersize=10)
    axes.set_yticks(range(len(labels)), [label.replace("pseudo-images, ", "") for label in labels], fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="KL in nats: 5, 25, 50, 75, 95 %")
    axes.set_title("KL(teacher || student)", fontsize=9)


def _source_label(name: str, entry: dict[str, Any]) -> str:
    if entry["iteration"] is not None:
        return f"pseudo-images, iteration {entry['iteration']:,}"
    return {"noise": "normal noise", "uniform_noise": "uniform noise"}.get(name, name)


def panel() -> tuple[Figure, Axes]:
    """A figure with one panel."""
    figure, axes = plt.subplots(figsize=PANEL, constrained_layout=True)
    return figure, axes


def measured_panels(rows: list[Row]) -> list[Panel]:
    """The panels of the training's curves that have something to show, with those curves alone.

    A loss that is 0 throughout, as that of attention maps with `loss.beta=0`, was not measured.
    """
    known = {name for row in rows for name, value in row.items() if value or name in _MAY_BE_0}
    panels = (panel._replace(names={n: label for n, label in panel.names.items() if n in known}) for panel in _PANELS)
    return [panel for panel in panels if panel.names]


def draw_curves(axes: Axes, what: Panel, rows: list[Row]) -> None:
    """The numbers of a panel over iterations, at most some hundred of each."""
    lowest, highest = math.inf, 0.0
    for name, label in what.names.items():
        points = evenly_spaced([(row["iteration"], row[name]) for row in rows if name in row], _POINTS)
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 30 else None)
            values = [value for _, value in points]
            lowest, highest = min(lowest, *values), max(highest, *values)
    axes.set(xlabel="iteration", ylabel=what.unit)
    axes.grid(alpha=0.3)
    axes.legend()
    if what.logarithmic and 0 < 10 * lowest < highest:
        axes.set_yscale("log")


def training_curves(rows: list[Row]) -> Figure | None:
    """Scores on the left, losses (log scale) on the right, over iterations; None where there are neither."""
    shown = measured_panels(rows)
    if not shown:
        return None
    size = (5.5 * len(shown), 4)
    figure, grid = plt.subplots(1, len(shown), figsize=size, constrained_layout=True, squeeze=False)
    for axes, what in zip(grid[0], shown, strict=True):
        draw_curves(axes, what, rows)
    return figure


def over_training(grids: list[Path]) -> Figure:
    """Up to eight grids from the first to the last, evenly spaced."""
    chosen = evenly_spaced(grids, _STRIP_COLUMNS)
    count = len(chosen)
    figure, panels = plt.subplots(1, count, figsize=(2.6 * count, 2.9), constrained_layout=True, squeeze=False)
    for axes, path in zip(panels[0], chosen, strict=True):
        axes.imshow(plt.imread(path))
        axes.set_title(f"iteration {int(path.stem.rsplit('_', 1)[1]):,}", fontsize=9)
        axes.axis("off")
    return figure


def save(figure: Figure, path: Path) -> None:
    write_atomic(path, png(figure))
