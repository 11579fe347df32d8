"""Mean transition curves of a group (Figure 4), with errors that know which numbers are independent.

Shapes: K values of a curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from zskt_dist.report.paper import Pair
from zskt_dist.report.runs import WITHOUT_DATA, Group, Measure, Run, Spread
from zskt_dist.report.tables import arrow, setting


class MeanCurve(NamedTuple):
    """Mean p_j over images, targets and seeds, [K], and its standard error; NaN where it is not known."""

    mean: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Panel:
    """One way of measuring one group: a panel of Figure 4."""

    group: Group
    measure: Measure
    mte: Spread
    p_a: MeanCurve
    """Of the stepped network."""
    p_b: MeanCurve


def panels_of(groups: Sequence[Group], dataset: str, pair: Pair) -> list[Panel]:
    """Of all evaluated groups of a pair, those without data first, then KD+AT by M."""
    order = (*WITHOUT_DATA, "distill", "finetune")
    mine = [group for group in groups if (group.dataset, group.pair) == (dataset, pair)]
    found = []
    for group in sorted(mine, key=lambda group: order.index(group.method)):
        for measure, runs in group.measures().items():
            runs = [run for run in runs if run.evaluation.get("mean_curves")]
            mte = Spread.of(run.mte["value"] for run in runs if run.mte)
            if mte:
                curves = [_curves_of(run) for run in runs]
                p_a, p_b = (mean_over_seeds([curve[name] for curve in curves]) for name in ("p_a", "p_b"))
                found.append(Panel(group, measure, mte, p_a, p_b))
    return found


def mean_over_seeds(curves: Sequence[MeanCurve]) -> MeanCurve:
    """The mean of the seeds' curves, and its standard error.

    Seeds are measured on nearly the same test images, so another seed does not average the images' part of the error
    out: that is the seeds' root mean square, not divided by their number. What differs between seeds adds its own
    standard error (ddof = 1). Part of the images' noise is in both, so the sum errs on the wide side.
    """
    means = np.array([curve.mean for curve in curves])
    variance = np.square([curve.error for curve in curves]).mean(axis=0)
    if len(curves) > 1:
        variance = variance + means.var(axis=0, ddof=1) / len(curves)
    return MeanCurve(means.mean(axis=0), np.sqrt(variance))


def figure_4(panels: Sequence[Panel]) -> pd.DataFrame:
    """The curves as numbers, one row per panel and step."""
    frames = [
        pd.DataFrame(
            {
                "data": panel.group.dataset,
                "pair": arrow(panel.group.pair),
                "student": setting(panel.group),
                "n": panel.mte.n,
                "K": panel.measure.steps,
                "xi": panel.measure.step_size,
                "stepped": panel.measure.stepped,
                "skipped class": panel.measure.skip,
                "step": range(len(panel.p_a.mean)),
                "stepped mean": panel.p_a.mean,
                "stepped standard error": panel.p_a.error,
                "other mean": panel.p_b.mean,
                "other standard error": panel.p_b.error,
                "config": panel.group.hashes,
            }
        )
        for panel in panels
    ]
    return pd.concat(frames, ignore_index=True).round(6) if frames else pd.DataFrame()


def _curves_of(run: Run) -> dict[str, MeanCurve]:
    means, images = run.evaluation["mean_curves"], run.mte["images"] if run.mte else 0
    known = 1.0 if images > 1 else np.nan  # one image does not tell how much images differ
    return {
        name: MeanCurve(np.array(means[name]), known * np.array(means[f"{name}_standard_error"]))
        for name in ("p_a", "p_b")
    }
