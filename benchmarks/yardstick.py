"""Estimates without labels beside what test images say: rank correlation and distance, over the students of a teacher.

Reads finished `train` runs of both methods that were measured on the way (`evaluation.every`): every measurement is a
student. Spearman's rank correlation of each estimate is over the students of one teacher that have it, and beside it
that of the yardstick over the same students.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.measure import table, write
from zskt_dist.report.runs import WITHOUT_DATA, find_runs
from zskt_dist.report.tables import NAMES

YARDSTICK = "yardstick_agreement"
ESTIMATES = {
    YARDSTICK: "yardstick",
    "noise_agreement": "normal noise",
    "label_free_score": "label-free score",
    "held_out_agreement": "pseudo-images",
    "held_out_kl": "KL on pseudo-images",
}
_STYLES = {"train": ("#D55E00", "o"), "inversion": ("#0072B2", "s")}


def students(places: Sequence[Path]) -> pd.DataFrame:
    """One row for each measurement with a yardstick: teacher, method, run, iteration, `agreement`, estimates."""
    rows: list[dict[str, Any]] = []
    for run in find_runs(places):
        teacher = f"{run.result['dataset']}, {run.pair[0]} ({run.teacher})"
        about = {"teacher": teacher, "student": run.pair[1], "method": run.method, "run": run.directory.path.name}
        if run.method not in WITHOUT_DATA:
            continue
        for row in run.history:
            if YARDSTICK in row and "agreement" in row:
                kept = {name: row[name] for name in ("iteration", "agreement", "accuracy", *ESTIMATES) if name in row}
                rows.append(about | kept)
    return pd.DataFrame(rows)


def ranks(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """For each teacher and estimate: students, Spearman's rho with agreement on test images, and the yardstick's.

    KL falls where agreement rises, so its sign is turned. `distance` is the mean absolute difference to the agreement
    on test images; None for KL.
    """
    found = []
    for teacher, own in frame.groupby("teacher", sort=False):
        for name in (name for name in ESTIMATES if name in own):
            known = own[own[name].notna()]
            if len(known) < 4:
                continue
            sign = -1 if name == "held_out_kl" else 1
            found.append(
                {
                    "teacher": teacher,
                    "estimate": name,
                    "students": len(known),
                    "spearman": _spearman(sign * known[name], known["agreement"]),
                    "spearman_of_yardstick": _spearman(known[YARDSTICK], known["agreement"]),
                    "distance": None if sign < 0 else float((known[name] - known["agreement"]).abs().mean()),
                }
            )
    return found


def _spearman(estimate: pd.Series, measured: pd.Series) -> float:
    return float(spearmanr(estimate, measured).statistic)


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Agreement on test images against that on the yardstick, a panel for each teacher."""
    teachers = list(frame["teacher"].unique())
    figure, panels = plt.subplots(1, len(teachers), figsize=(3.1 * len(teachers), 3.3), squeeze=False, sharey=True)
    for panel, teacher in zip(panels[0], teachers, strict=True):
        own = frame[frame["teacher"] == teacher]
        for method, (colour, marker) in _STYLES.items():
            points = own[own["method"] == method]
            panel.scatter(
                points[YARDSTICK], points["agreement"], s=14, color=colour, marker=marker, label=NAMES[method]
            )
        panel.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1)
        panel.set(title=teacher.partition(" (")[0], xlabel="agreement on the yardstick", xlim=(0, 1), ylim=(0, 1))
        panel.title.set_fontsize(8)
        panel.grid(alpha=0.25)
    panels[0][0].set_ylabel("agreement on test images")
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw agreements, as PNG")
    wanted = parser.parse_args(arguments)
    frame = students(wanted.runs)
    if frame.empty:
        parser.error("no measurement with a yardstick there; runs need test images, evaluation.every and a yardstick")
    found = ranks(frame)
    rows = [
        [
            each["teacher"],
            ESTIMATES[each["estimate"]],
            each["students"],
            f"{each['spearman']:.2f}",
            f"{each['spearman_of_yardstick']:.2f}",
            "" if each["distance"] is None else f"{100 * each['distance']:.1f}",
        ]
        for each in found
    ]
    columns = ["teacher", "estimate", "students", "Spearman", "yardstick, same students", "distance, points"]
    print(table(columns, rows))
    measured = [{k: v for k, v in row.items() if not pd.isna(v)} for row in frame.to_dict("records")]
    write({"students": len(frame), "ranks": found, "measured": measured}, wanted.json)
    if wanted.figure:
        draw(frame, wanted.figure)


if __name__ == "__main__":
    main()
