"""A sweep as figures: accuracy and MTE over each key, the matrix of pairs, score against accuracy."""

from collections.abc import Iterable, Sequence

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
        table: A row for each trial, as of `table.trial_row`.
        keys: Dotted keys that the sweep varies, but for the seed.
    """
    finished = table[table["state"] == "finished"].astype(dict.fromkeys(_LABELS, float))
    finished[["accuracy", "score"]] *= 100
    if finished[list(_LABELS)].isna().all(axis=None):
        return {}
    swept = [key for key in keys if finished[key].map(str).nunique() > 1]
    numeric = [key for key in swept if is_numeric_dtype(finished[key]) and finished[key].notna().all()]
    figures: dict[str, Figure | None] = {f"over {key}": _over(finished, key, swept) for key in numeric}
    if "teacher.arch" in keys and "student.arch" in keys:
        figures["pairs"] = _pairs(finished)
    figures["score against accuracy"] = _scores(finished)
    return figures


def _panels(measures: Sequence[str], width: float) -> tuple[Figure, Iterable[tuple[str, Axes]]]:
    """A figure with a panel for each measure."""
    size = (width * len(measures), 3.9)
    figure, panels = plt.subplots(1, len(measures), figsize=size, constrained_layout=True, squeeze=False)
    return figure, zip(measures, panels[0], strict=True)


def _over(finished: pd.DataFrame, key: str, swept: Sequence[str]) -> Figure:
    """Each measure over one key: every trial a point, a line through the means for each value of the other keys."""
    others = finished[[other for other in swept if other != key]].astype(str)
    lines = others.apply(lambda row: ", ".join(f"{k}={v}" for k, v in row.items()), axis="columns")
    if not 1 < lines.nunique() <= len(_COLOURS):  # too many to be told apart: all trials together
        lines = pd.Series("", finished.index)
    figure, panels = _panels([name for name in _LABELS if finished[name].notna().any()], 4.4)
    for name, axes in panels:
        axes.scatter(finished[key], finished[name], s=14, color="gray", alpha=0.5)
        means = finished.pivot_table(index=key, columns=lines, values=name, sort=False).sort_index()
        for colour, (label, line) in zip(_COLOURS, means.items(), strict=False):
            axes.plot(line.dropna(), color=colour, marker="o", markersize=4, label=label)
        axes.set(xlabel=key, ylabel=_LABELS[name])
        _scale(axes, finished[key].astype(float))
        axes.grid(alpha=0.25)
    if lines.nunique() > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _scale(axes: Axes, x: pd.Series) -> None:
    """Logarithmic for values over more than a decade, and linear below them: zero may be there too."""
    positive = x[x > 0]
    if len(positive) and positive.max() / positive.min() > 10:
        axes.set_xscale("symlog", linthresh=positive.min())
        ticks = sorted(set(x))
        if len(ticks) <= 8:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()


def _pairs(finished: pd.DataFrame) -> Figure:
    """Mean accuracy and MTE, without test images the score, for each teacher (row) and student (column)."""
    figure, panels = _panels([name for name in ("accuracy", "mte") if finished[name].notna().any()] or ["score"], 5.2)
    for name, axes in panels:
        matrix = finished.pivot_table(index="teacher.arch", columns="student.arch", values=name)
        image = axes.imshow(matrix, cmap="viridis_r" if name == "mte" else "viridis", aspect="auto")
        axes.set_xticks(range(len(matrix.columns)), matrix.columns, rotation=30, ha="right")
        axes.set_yticks(range(len(matrix.index)), matrix.index)
        for (row, column), value in np.ndenumerate(matrix):
            text = "" if np.isnan(value) else f"{value:.3f}" if name == "mte" else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color="white", fontsize=9, fontweight="bold")
        axes.set(xlabel="student", ylabel="teacher", title=_LABELS[name])
        figure.colorbar(image, ax=axes)
    return figure


def _scores(finished: pd.DataFrame) -> Figure | None:
    """Each setting a point, the mean over its seeds."""
    both = settings_by(finished, "score")
    if both is None:
        return None
    figure, axes = plt.subplots(figsize=(4.8, 4), constrained_layout=True)
    axes.scatter(both["score"], both["accuracy"], color=_COLOURS[0])
    rho = both["score"].corr(both["accuracy"], method="spearman")
    title = f"rank correlation {rho:.2f}, {len(both)} settings"
    axes.set(xlabel=_LABELS["score"], ylabel=_LABELS["accuracy"], title=title)
    axes.grid(alpha=0.25)
    return figure
