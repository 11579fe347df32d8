"""The paper's figures from groups of runs."""

from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zskt_dist.report.runs import Group
from zskt_dist.report.tables import NAMES, Pair, setting

# Okabe and Ito's palette, which colour-blind readers can tell apart; one colour per method everywhere.
COLOURS = {"teacher": "#000000", "scratch": "#E69F00", "distill": "#0072B2", "train": "#D55E00", "finetune": "#009E73"}


def accuracy_against_images(groups: Sequence[Group], dataset: str, pair: Pair) -> Figure | None:
    """Figure 2: accuracy of each method over M; methods that see no or all images as horizontal lines."""
    mine = [g for g in groups if g.dataset == dataset and _of(g, pair)]
    curves = [g for g in mine if g.images_per_class is not None]
    if not curves:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.2), constrained_layout=True)
    for method in ("finetune", "distill", "scratch"):
        points = sorted((g for g in curves if g.method == method), key=lambda g: g.images_per_class or 0)
        if points:
            x = [g.images_per_class or 0 for g in points]
            y, error = [g.accuracy.mean for g in points], [g.accuracy.std for g in points]
            axes.errorbar(x, y, error, label=NAMES[method], color=COLOURS[method], marker="o", capsize=3)
    styles = {"teacher": ":", "train": "-", "scratch": "--", "distill": "--"}
    for group in mine:
        if group.images_per_class is None and group.method in styles:
            label = NAMES[group.method] + (", all images" if group.method in ("scratch", "distill") else "")
            style, colour = styles[group.method], COLOURS[group.method]
            axes.axhline(group.accuracy.mean, linestyle=style, color=colour, label=label, linewidth=1.3)
    axes.set(xlabel="images per class M", ylabel="test accuracy %", title=f"{dataset}: {pair[0]} → {pair[1]}")
    axes.set_xscale("log")
    ticks = sorted({g.images_per_class or 0 for g in curves})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def transition_curves(groups: Sequence[Group], dataset: str, pair: Pair) -> Figure | None:
    """Figure 4: mean p_j of stepped network and other with ± 2 standard errors, zero-shot left, KD+AT right."""
    mine = [g for g in groups if g.dataset == dataset and g.first.pair == pair and _curves(g)]
    chosen = [[g for g in mine if g.method == method][:1] for method in ("train", "distill")]
    panels = [g for one in chosen for g in one]
    if not panels:
        return None
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 3.8), constrained_layout=True, sharey=True, squeeze=False
    )
    for place, group in zip(axes[0], panels, strict=True):
        _draw_curves(place, group)
    axes[0][0].set_ylabel("mean probability of target class j")
    figure.suptitle(f"{dataset}: {pair[0]} → {pair[1]}")
    return figure


def noise_predictions(groups: Sequence[Group], dataset: str) -> Figure | None:
    """Figure 5: how often each class is predicted for uniform noise, one row of bars per network."""
    shares: dict[str, tuple[str, np.ndarray]] = {}
    for group in (g for g in groups if g.dataset == dataset):
        noise = [run.evaluation["noise"] for run in group.runs if run.evaluation and run.evaluation["noise"]]
        for name in ("teacher", "student"):
            found = [one[name] for one in noise if name in one]
            if found:
                arch = (group.first.result[name] or {}).get("arch", "")
                label = f"teacher {arch}" if name == "teacher" else f"{arch}, {setting(group)}"
                shares.setdefault(label, (_noise_colour(name, group), np.mean(found, axis=0)))
    if not shares:
        return None
    figure, axes = plt.subplots(figsize=(8, 3.6), constrained_layout=True)
    width = 0.85 / len(shares)
    for number, (label, (colour, values)) in enumerate(shares.items()):
        place = np.arange(len(values)) + (number - (len(shares) - 1) / 2) * width
        alpha = 1.0 if colour == "#000000" else 0.4 + 0.6 * (number + 1) / len(shares)
        axes.bar(place, values, width, label=label, color=colour, alpha=alpha)
    axes.set(xlabel="predicted class", ylabel="share of noise images", title=f"{dataset}: predictions on uniform noise")
    axes.set_xticks(range(len(next(iter(shares.values()))[1])))
    axes.legend(fontsize=8)
    return figure


def _noise_colour(name: str, group: Group) -> str:
    return COLOURS["teacher"] if name == "teacher" else COLOURS[group.method]


def _of(group: Group, pair: Pair) -> bool:
    """Whether a group belongs into the figure of a pair: its own runs, its teacher's, its student's from scratch."""
    return group.first.pair in (pair, (pair[0], None), (None, pair[1]))


def _curves(group: Group) -> list[dict[str, Any]]:
    return [run.evaluation["mean_curves"] for run in group.runs if run.evaluation and run.evaluation["mean_curves"]]


def _draw_curves(axes: Axes, group: Group) -> None:
    curves = _curves(group)
    mte = next(run.result["mte"] for run in group.runs if run.result["mte"])
    other = "teacher" if mte["stepped"] == "student" else "student"
    for name, label, colour in (
        ("p_a", f"{mte['stepped']} (stepped)", COLOURS[group.method]),
        ("p_b", other, COLOURS["teacher"]),
    ):
        mean = np.mean([curve[name] for curve in curves], axis=0)
        # Seeds are independent: the error of their mean.
        squares = np.square([curve[f"{name}_standard_error"] for curve in curves])
        error = np.sqrt(squares.sum(axis=0)) / len(curves)
        axes.plot(mean, label=label, color=colour)
        axes.fill_between(range(len(mean)), mean - 2 * error, mean + 2 * error, alpha=0.25, color=colour, linewidth=0)
    spread = group.spread(lambda run: (run.result["mte"] or {}).get("value"))
    assert spread
    axes.set_title(f"{setting(group)}: MTE {spread.mean:.3f}", fontsize=10)
    axes.set(xlabel="adversarial steps", ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
