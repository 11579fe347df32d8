"""The paper's figures from groups of runs."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zskt_dist.report import paper
from zskt_dist.report.curves import Panel
from zskt_dist.report.noise import Predictions
from zskt_dist.report.paper import Pair
from zskt_dist.report.runs import Group
from zskt_dist.report.tables import NAMES, setting

# Okabe and Ito's palette, which colour-blind readers can tell apart; one colour per method everywhere.
COLOURS = {"teacher": "#000000", "scratch": "#E69F00", "distill": "#0072B2", "train": "#D55E00"}
COLOURS |= {"finetune": "#009E73", "inversion": "#CC79A7"}
_MARKERS = "osD^vP*X"
"""One for each variant of a method; the first is that of the reference."""
_PANELS = 3
"""Beside each other."""


def accuracy_against_images(groups: Sequence[Group], dataset: str, pair: Pair) -> Figure | None:
    """Figure 2: accuracy of each method over M; methods that see no or all images as horizontal lines."""
    mine = [group for group in groups if group.belongs_to(dataset, pair)]
    ticks = sorted({group.images_per_class for group in mine if group.images_per_class is not None})
    if not ticks:
        return None
    figure, axes = plt.subplots(figsize=(8.6, 4.4), constrained_layout=True)
    for method in ("finetune", "distill", "scratch"):
        few = [group for group in mine if group.method == method and group.images_per_class is not None]
        for number, label in enumerate(dict.fromkeys(group.label for group in few)):
            _draw_line(axes, [group for group in few if group.label == label], _MARKERS[number % len(_MARKERS)])
    styles = {"teacher": ":", "train": "-", "inversion": "-", "scratch": "--", "distill": "--"}
    for group in (g for g in mine if g.images_per_class is None and g.method in styles):
        label = setting(group) + (", all images" if group.method in ("scratch", "distill") else "")
        style = "-." if group.changes else styles[group.method]
        if spread := group.accuracy:
            color = COLOURS[group.method]
            axes.axhline(spread.mean, linestyle=style, color=color, label=_wrapped(label), linewidth=1.3)
    if vid := paper.figure_2("vid", dataset, pair, 100):
        axes.plot(100, vid.mean, "kx", label="VID, M = 100 (the paper's)")
        ticks = sorted({*ticks, 100})
    axes.set(xlabel="images per class M", ylabel="test accuracy %", title=f"{dataset}: {pair[0]} → {pair[1]}")
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    _legend_outside(axes)
    return figure


def transition_curves(panels: Sequence[Panel], dataset: str, pair: Pair) -> Figure | None:
    """Figure 4: mean p_j of stepped network and other with ± 2 standard errors, one panel for each group."""
    if not panels:
        return None
    columns = 2 if len(panels) == 4 else min(len(panels), _PANELS)
    rows = -(-len(panels) // columns)
    size = (4.4 * columns, 3.7 * rows + 0.3)
    figure, grid = plt.subplots(rows, columns, figsize=size, constrained_layout=True, sharey=True, squeeze=False)
    for place, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(place, panel)
    for place in grid.flat[len(panels) :]:
        place.axis("off")
    for row in grid:
        row[0].set_ylabel("mean probability of target class j")
    figure.suptitle(f"{dataset}: {pair[0]} → {pair[1]}")
    return figure


def noise_predictions(found: Sequence[Predictions], dataset: str, pair: Pair) -> Figure | None:
    """Figure 5: how often each class is predicted for uniform noise, one row of bars per network."""
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(10, 3.8), constrained_layout=True)
    width = 0.85 / len(found)
    for number, one in enumerate(found):
        same = [other for other in found if other.method == one.method]
        rank = next(i for i, other in enumerate(same) if other is one)
        alpha = 1 - 0.7 * rank / max(1, len(same) - 1) if len(same) > 1 else 1
        place = np.arange(len(one.shares)) + (number - (len(found) - 1) / 2) * width
        label = _wrapped(f"{one.network} (n={one.n})")
        bars = axes.bar(place, one.shares, width, label=label, color=COLOURS[one.method], alpha=alpha)
        if one.special:
            for bar in bars:
                bar.set(hatch="////", edgecolor="white", linewidth=0)
    axes.set(xlabel="predicted class", ylabel="share of noise images")
    axes.set_title(f"{dataset}, {pair[0]} → {pair[1]}: predictions on uniform noise")
    axes.set_xticks(range(len(found[0].shares)))
    _legend_outside(axes)
    return figure


def _draw_line(axes: Axes, groups: Sequence[Group], marker: str) -> None:
    points = sorted(groups, key=lambda group: group.images_per_class or 0)
    x = [group.images_per_class or 0 for group in points]
    spreads = [group.accuracy for group in points if group.accuracy]  # who sees images is measured on some
    y, error = [spread.mean for spread in spreads], [spread.std for spread in spreads]
    method, label = points[0].method, points[0].label
    name = _wrapped(NAMES[method] + (f" [{label}]" if label else ""))
    style = ":" if label else "-"
    axes.errorbar(x, y, error, label=name, color=COLOURS[method], marker=marker, linestyle=style, capsize=3)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    how = panel.measure
    other = "teacher" if how.stepped == "student" else "student"
    for curve, label, colour in (
        (panel.p_a, f"{how.stepped} (stepped)", COLOURS[panel.group.method]),
        (panel.p_b, other, COLOURS["teacher"]),
    ):
        axes.plot(curve.mean, label=label, color=colour)
        low, high = curve.mean - 2 * curve.error, curve.mean + 2 * curve.error
        axes.fill_between(range(len(curve.mean)), low, high, alpha=0.25, color=colour, linewidth=0)
    name = _wrapped(setting(panel.group), 46)
    settings = f"MTE {panel.mte.mean:.3f}, n={panel.mte.n}, K={how.steps}, ξ={how.step_size:g}"
    axes.set_title(f"{name}\n{settings}", fontsize=9)
    axes.set(xlabel="adversarial steps", ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _legend_outside(axes: Axes) -> None:
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def _wrapped(text: str, width: int = 44) -> str:
    """Lines that break between settings: labels have as many as a run differs in."""
    whole = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return textwrap.fill(whole, width, break_long_words=False, break_on_hyphens=False)
