"""A sweep as figures: accuracy and MTE over each key, the matrix of pairs, score against accuracy."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from zskt_dist.sweep.table import settings_by

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
_LABELS = {"accuracy": "test accuracy %", "mte": "MTE", "score": "label-free score %"}


def sweep_figures(table: pd.DataFrame, keys: Sequence[str]) -> dict[str, Figure | None]:
    """Figures by a label, of the finished trials; none where nothing was measured of them.

    Args:
        table: `table.trial_table`.
        keys: Dotted keys that the sweep varies.
    """
    finished = table[table["state"] == "finished"]
    if finished[list(_LABELS)].isna().all(axis=None):
        return {}
    swept = [key for key in keys if key != "seed" and finished[key].map(str).nunique() > 1]
    numeric = [key for key in swept if is_numeric_dtype(finished[key]) and finished[key].notna().all()]
    figures: dict[str, Figure | None] = {f"over {key}": _over(finished, key, swept) for key in numeric}
    if "teacher.arch" in keys and "student.arch" in keys:
        figures["pairs"] = _pairs(finished)
    figures["score against accuracy"] = _scores(finished, keys)
    return figures


def _over(finished: pd.DataFrame, key: str, swept: Sequence[str]) -> Figure:
    """Each measure over one key: every trial a point, a line through the means for each value of the other keys."""
    measures = [name for name in _LABELS if finished[name].notna().any()]
    figure, panels = plt.subplots(1, len(measures), figsize=(4.4 * len(measures), 3.8), constrained_layout=True)
    others = [other for other in swept if other != key]
    lines = _lines(finished, others)
    for axes, name in zip(np.atleast_1d(panels), measures, strict=True):
        for (label, group), colour in zip(lines, cycle(_COLOURS), strict=False):
            _draw_line(axes, group, key, name, label, colour)
        axes.set(xlabel=key, ylabel=_LABELS[name])
        _scale(axes, finished[key].astype(float))
        axes.grid(alpha=0.25)
    if len(lines) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _lines(finished: pd.DataFrame, others: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """A line for each combination of the other keys, where they are few; else all trials together."""
    if not others:
        return [("", finished)]
    labels = finished[list(others)].astype(str).agg(lambda row: ", ".join(f"{k}={v}" for k, v in row.items()), axis=1)
    if labels.nunique() > len(_COLOURS):
        return [("", finished)]
    return [(str(label), group) for label, group in finished.groupby(labels, sort=False)]


def _draw_line(axes: Axes, group: pd.DataFrame, key: str, name: str, label: str, colour: str) -> None:
    x = group[key].astype(float)
    y = group[name].astype(float) * (1 if name == "mte" else 100)
    axes.scatter(x, y, s=14, color=colour, alpha=0.5)
    means = y.groupby(x).mean().dropna()
    axes.plot(means.index, means, color=colour, marker="o", markersize=4, label=label)


def _scale(axes: Axes, x: pd.Series) -> None:
    """Logarithmic for values over more than a decade; with zero among them, linear around it."""
    positive = x[x > 0]
    if len(positive) and positive.max() / positive.min() > 10:
        if (x > 0).all():
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=positive.min())
        ticks = sorted(set(x))
        if len(ticks) <= 8:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()


def _pairs(finished: pd.DataFrame) -> Figure:
    """Mean accuracy and MTE, without test images the score, for each teacher (row) and student (column)."""
    measures = [name for name in ("accuracy", "mte") if finished[name].notna().any()] or ["score"]
    figure, panels = plt.subplots(1, len(measures), figsize=(5.2 * len(measures), 4), constrained_layout=True)
    for axes, name in zip(np.atleast_1d(panels), measures, strict=True):
        frame = finished.assign(value=finished[name].astype(float) * (1 if name == "mte" else 100))
        matrix = frame.pivot_table(index="teacher.arch", columns="student.arch", values="value", aggfunc="mean")
        image = axes.imshow(matrix, cmap="viridis_r" if name == "mte" else "viridis", aspect="auto")
        axes.set_xticks(range(len(matrix.columns)), matrix.columns, rotation=30, ha="right")
        axes.set_yticks(range(len(matrix.index)), matrix.index)
        for row, column in np.ndindex(matrix.shape):
            value = matrix.iloc[row, column]
            text = "" if np.isnan(value) else f"{value:.3f}" if name == "mte" else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color="white", fontsize=9, fontweight="bold")
        axes.set(xlabel="student", ylabel="teacher", title=_LABELS[name])
        figure.colorbar(image, ax=axes)
    return figure


def _scores(finished: pd.DataFrame, keys: Sequence[str]) -> Figure | None:
    """Each setting a point, the mean over its seeds."""
    both = settings_by(finished, keys, "score")
    if both is None:
        return None
    figure, axes = plt.subplots(figsize=(4.8, 4), constrained_layout=True)
    axes.scatter(100 * both["score"], 100 * both["accuracy"], color=_COLOURS[0])
    rho = both["score"].corr(both["accuracy"], method="spearman")
    axes.set(
        xlabel=_LABELS["score"], ylabel=_LABELS["accuracy"], title=f"rank correlation {rho:.2f}, {len(both)} settings"
    )
    axes.grid(alpha=0.25)
    return figure
