"""A sweep as tables: one row per trial, means over seeds, and how well the label-free score ranks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from zskt_dist.errors import UserError
from zskt_dist.evaluation.held_out import ranked_by
from zskt_dist.files import sha256_of
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.mirror import local_file
from zskt_dist.sweep.space import Trial

MEASURES = ["score", "label_free_score", "accuracy", "mte"]
"""What is averaged over seeds."""
_RANKING = (
    *("score", "yardstick_agreement", "label_free_score"),
    *("held_out_agreement", "noise_agreement", "generator_loss_drift"),
)
"""What trials could be ranked by without labels; of the drift the size, so a good one goes down as accuracy goes up."""
_FEWEST = 4
"""Settings for a rank correlation."""


def trial_row(trial: Trial, pooled: Mapping[str, float]) -> dict[str, Any]:
    """Settings, state, label-free scores, and as outcomes accuracy and MTE (fractions).

    Args:
        pooled: `selection.pooled_agreement`, by run directory; {} where it was not asked for, or needed by no trial.

    Returns:
        `score` is what trials are ranked by without labels: agreement on their teacher's yardstick, else the pooled
        agreement, or what `ranked_by` finds; of trials that have not finished, what that was at the last evaluation;
        `setting` is one text for all settings but the seed.
    """
    result = (trial.run.finished() if trial.state == "finished" else None) or {}
    estimates, student = result.get("estimates") or {}, result.get("student") or {}
    by_pool = pooled and "yardstick_agreement" not in estimates
    score = pooled.get(str(trial.run.path)) if by_pool else ranked_by(estimates)
    return {
        "trial": trial.number,
        **trial.settings,
        "state": trial.state,
        "iteration": result.get("iterations", trial.iteration),
        "score": score if trial.state == "finished" else trial.score,
        **{name: estimates.get(name) for name in _RANKING[1:]},
        "accuracy": student.get("accuracy_last"),
        "agreement": student.get("agreement"),
        "teacher_weights": _teacher(trial.run) if result else None,
        "teacher_accuracy": (result.get("teacher") or {}).get("accuracy"),
        "mte": (result.get("mte") or {}).get("value"),
        "seconds": result.get("seconds"),
        "run": trial.run.path.name,
        "config_hash": trial.hash,
        "message": trial.message,
        "setting": json.dumps({key: value for key, value in trial.settings.items() if key != "seed"}),
    }


def means_over_seeds(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean and population standard deviation over the seeds of each setting, with n.

    Args:
        keys: Dotted keys that the sweep varies, but for the seed.
    """
    finished = table[table["state"] == "finished"].astype(dict.fromkeys(MEASURES, float))
    seeds = finished.groupby("setting", sort=False)
    spread = seeds[MEASURES].mean().join(seeds[MEASURES].std(ddof=0), rsuffix="_std").dropna(axis="columns", how="all")
    first = finished.drop_duplicates("setting").set_index("setting")[list(keys)]
    return first.assign(n=seeds.size()).join(spread)


def best_trial(table: pd.DataFrame, select_by: str) -> int | None:
    """Number of the chosen trial: of the best setting (on average over seeds) the best one; None if none finished."""
    column = "score" if select_by == "label_free_score" else "accuracy"
    finished = table[(table["state"] == "finished") & table[column].notna()]
    means = finished.groupby("setting")[column].transform("mean")
    order = finished.assign(mean=means).sort_values(["mean", column, "trial"], ascending=[False, False, True])
    return next(iter(order["trial"]), None)


def rank_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho of every label-free score with test accuracy, over settings; empty for fewer than four."""
    rows = []
    for name in _RANKING:
        both = settings_by(table, name)
        if both is not None:
            rho = both[name].corr(both["accuracy"], method="spearman")
            shown = f"|{name}|" if name == "generator_loss_drift" else name
            rows.append({"score": shown, "rank correlation with accuracy": rho, "n": len(both)})
    return pd.DataFrame(rows)


def settings_by(table: pd.DataFrame, name: str) -> pd.DataFrame | None:
    """Mean accuracy and score `name` of each setting over its seeds; None for too few settings, or all alike.

    Seeds of one setting are no independent observations: counted one by one they would promise too much.
    """
    both = table.set_index("setting")[["accuracy", name]].astype(float).dropna().abs()
    means = both.groupby("setting", sort=False).mean()
    return means if len(means) >= _FEWEST and (means.nunique() > 1).all() else None


def compares_teachers(table: pd.DataFrame) -> bool:
    """True if finished trials learnt from different teachers: the one that is easiest to imitate has an advantage."""
    return bool(table["teacher_weights"].nunique() > 1)


def _teacher(run: RunDirectory) -> str | None:
    """What tells teachers apart: eight hex digits over the weights; where they are gone, the place where they were."""
    where = run.teacher_weights()
    try:
        return where and sha256_of(local_file(where, "teacher weights"))[:8]
    except (OSError, UserError):
        return where
