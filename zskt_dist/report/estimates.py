"""What zero-shot runs estimate of their students without labels, beside what real test images say."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from zskt_dist.report.runs import WITHOUT_DATA, Group, Run
from zskt_dist.report.tables import NAMES

SCORES = {
    "yardstick": "yardstick %",
    "label_free_score": "label-free score %",
    "held_out": "pseudo-images %",
    "noise": "normal noise %",
    "uniform_noise": "uniform noise %",
    "held_out_kl": "median KL on pseudo-images",
}
"""Columns of estimates, and their headings; agreements in percent, KL in nats."""
MEASURED = {"agreement": "agreement on test images %", "accuracy": "test accuracy %"}
FEWEST = 4
"""Runs for a rank correlation: three can stand in the same order by chance in one case out of six."""
_COLOURS = {
    "yardstick": ("#000000", "D"),
    "held_out": ("#D55E00", "o"),
    "noise": ("#0072B2", "s"),
    "uniform_noise": ("#009E73", "^"),
}


def estimates(groups: Sequence[Group]) -> pd.DataFrame:
    """One row for each zero-shot run that has both estimates and test images.

    A teacher is called by its architecture, and where others of that were there too, also by its own name.
    """
    rows = [_row(run) for group in groups if group.method in WITHOUT_DATA for run in group.runs if _has_both(run)]
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(rows)
    several = frame.groupby(["data", "teacher"])["whose"].transform("nunique") > 1
    frame.loc[several, "teacher"] += " (" + frame["whose"] + ")"
    return frame.drop(columns="whose")


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The same for people: headings, and two digits after the point; empty where a run has none."""
    digits = {"held_out_kl": "{:.3g}"}
    cells = {
        heading: ["" if pd.isna(value) else digits.get(name, "{:.2f}").format(value) for value in frame[name]]
        for name, heading in (SCORES | MEASURED).items()
    }
    return frame[["data", "teacher", "student", "method", "run", "seed", "iterations"]].assign(**cells)


def ranking(frame: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of every estimate with what was measured, over the runs with one teacher."""
    rows = []
    for (data, teacher), runs in by_teacher(frame):
        for name, heading in SCORES.items():
            known = runs[runs[name].notna()]
            if len(known) < FEWEST or known[name].nunique() == 1:
                continue
            row: dict[str, Any] = {"data": data, "teacher": teacher, "estimate": heading, "runs": len(known)}
            for measured, what in MEASURED.items():
                row[f"rank correlation with {what.removesuffix(' %')}"] = _rho(known[name], known[measured])
            rows.append(row)
    return pd.DataFrame(rows)


def against_accuracy(runs: pd.DataFrame, label: str) -> Figure:
    """Estimated agreements of the runs of one teacher against their test accuracy; the line is where both are equal."""
    figure, axes = plt.subplots(figsize=(5.2, 4.4), constrained_layout=True)
    shown = [name for name in _COLOURS if runs[name].notna().any()]
    for name in shown:
        colour, marker = _COLOURS[name]
        axes.scatter(runs[name], runs["accuracy"], color=colour, marker=marker, label=SCORES[name].removesuffix(" %"))
    low = min(runs[[*shown, "accuracy"]].min())
    axes.plot([low, 100], [low, 100], color="gray", linestyle=":", linewidth=1)
    axes.set(
        xlabel="agreement with the teacher %, on images that are not real", ylabel=MEASURED["accuracy"], title=label
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def by_teacher(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """((data set, teacher), its runs): an agreement is with one teacher, and does not compare across teachers."""
    yield from frame.groupby(["data", "teacher"], sort=False)


def _has_both(run: Run) -> bool:
    found, student = run.result.get("estimates") or {}, run.result["student"]
    return bool(found.get("sources")) and student["accuracy_last"] is not None and student["agreement"] is not None


def _row(run: Run) -> dict[str, Any]:
    found, student = run.result["estimates"], run.result["student"]
    sources = found["sources"]
    return {
        "data": run.result["dataset"],
        "teacher": run.result["teacher"]["arch"],
        "whose": run.teacher,
        "student": student["arch"],
        "method": NAMES[run.method] + (f", {run.seed_images:,} images given" if run.seed_images else ""),
        "run": run.directory.path.name,
        "seed": run.seed,
        "iterations": run.result["iterations"],
        "label_free_score": 100 * found.get("label_free_score", math.nan),
        **{name: 100 * sources.get(name, {}).get("agreement", math.nan) for name in _COLOURS},
        "held_out_kl": sources.get("held_out", {}).get("kl_50", math.nan),
        "agreement": 100 * student["agreement"],
        "accuracy": 100 * student["accuracy_last"],
    }


def _rho(estimate: pd.Series, measured: pd.Series) -> str:
    """Empty where all were measured alike: then there is no order."""
    return f"{spearmanr(estimate, measured).statistic:.2f}" if measured.nunique() > 1 else ""
