"""A sweep as tables: one row per trial, means over seeds, and how well the label-free score ranks."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from zskt_dist.errors import UserError
from zskt_dist.files import sha256_of
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.mirror import local_file
from zskt_dist.sweep.states import State

MEASURES = ("score", "label_free_score", "accuracy", "mte")
"""What is averaged over seeds, and drawn."""
_RANKING = ("score", "label_free_score", "held_out_agreement", "noise_agreement", "generator_loss_drift")
"""What trials could be ranked by without labels; of the drift the size, so a good one goes down as accuracy goes up."""
_FEWEST = 4
"""Settings for a rank correlation."""


def trial_table(states: Iterable[State], runs: Mapping[str, RunDirectory], pooled: Mapping[str, float]) -> pd.DataFrame:
    """One row per trial: settings, state, label-free scores, and as outcomes accuracy and MTE (fractions).

    Args:
        runs: Run directories by the hash of the trial.
        pooled: `selection.pooled_agreement`, by run directory; {} where it was not asked for.

    Returns:
        `score` is what trials are ranked by without labels: the pooled agreement, or their own label-free score.
    """
    return pd.DataFrame([_row(state, runs[state.hash], pooled) for state in states])


def _row(state: State, run: RunDirectory, pooled: Mapping[str, float]) -> dict[str, Any]:
    result = run.finished() if state.state == "finished" else None
    estimates, student = (result or {}).get("estimates") or {}, (result or {}).get("student") or {}
    own = estimates.get("label_free_score", state.score)
    return {
        "trial": state.number,
        **state.settings,
        "state": state.state,
        "iteration": result["iterations"] if result else state.iteration,
        "score": pooled.get(str(run.path)) if pooled else (own if result else None),
        "label_free_score": own,
        "held_out_agreement": estimates.get("held_out_agreement"),
        "noise_agreement": estimates.get("noise_agreement"),
        "generator_loss_drift": estimates.get("generator_loss_drift"),
        "accuracy": student.get("accuracy_last"),
        "agreement": student.get("agreement"),
        "teacher_weights": _teacher(run) if result else None,
        "teacher_accuracy": ((result or {}).get("teacher") or {}).get("accuracy"),
        "mte": ((result or {}).get("mte") or {}).get("value"),
        "seconds": result["seconds"] if result else None,
        "run": run.path.name,
        "config_hash": state.hash,
        "message": state.message,
    }


def means_over_seeds(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean and population standard deviation over the seeds of each setting, with n.

    Args:
        keys: Dotted keys that the sweep varies.
    """
    settings = [key for key in keys if key != "seed"]
    finished = table[table["state"] == "finished"]
    if finished.empty or not settings:
        return pd.DataFrame()
    rows = []
    for _, group in finished.groupby(_setting(finished, settings), sort=False):
        row: dict[str, Any] = {key: group[key].iloc[0] for key in settings} | {"n": len(group)}
        for name in MEASURES:
            numbers = group[name].astype(float).dropna()
            if len(numbers):
                row |= {name: numbers.mean(), f"{name}_std": numbers.std(ddof=0)}
        rows.append(row)
    return pd.DataFrame(rows)


def best_trial(table: pd.DataFrame, keys: Sequence[str], select_by: str) -> int | None:
    """Number of the chosen trial: of the best setting (on average over seeds) the best one; None if none finished."""
    column = "score" if select_by == "label_free_score" else "accuracy"
    finished = table[(table["state"] == "finished") & table[column].notna()]
    if finished.empty:
        return None
    settings = [key for key in keys if key != "seed"]
    means = finished.groupby(_setting(finished, settings))[column].transform("mean") if settings else finished[column]
    order = finished.assign(mean=means).sort_values(["mean", column, "trial"], ascending=[False, False, True])
    return int(order.iloc[0]["trial"])


def rank_correlations(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Spearman's rho of every label-free score with test accuracy, over means of settings; empty for fewer than four.

    Args:
        keys: Dotted keys that the sweep varies.
    """
    rows = []
    for name in _RANKING:
        both = settings_by(table, keys, name)
        if both is not None:
            rho = both[name].corr(both["accuracy"], method="spearman")
            shown = f"|{name}|" if name == "generator_loss_drift" else name
            rows.append({"score": shown, "rank correlation with accuracy": rho, "n": len(both)})
    return pd.DataFrame(rows)


def settings_by(table: pd.DataFrame, keys: Sequence[str], name: str) -> pd.DataFrame | None:
    """Mean accuracy and score `name` of each setting over its seeds; None for too few settings, or all alike.

    Seeds of one setting are no independent observations: counted one by one they would promise too much.
    """
    both = table[table["accuracy"].notna() & table[name].notna()]
    settings = [key for key in keys if key != "seed"]
    if both.empty or not settings:
        return None
    numbers = both[["accuracy", name]].astype(float).abs()
    means = numbers.groupby(_setting(both, settings), sort=False).mean()
    return means if len(means) >= _FEWEST and (means.nunique() > 1).all() else None


def compares_teachers(table: pd.DataFrame) -> bool:
    """Whether finished trials learnt from different teachers: the one that is easiest to imitate has an advantage."""
    return bool(table["teacher_weights"].nunique() > 1)


def _teacher(run: RunDirectory) -> str | None:
    """What tells teachers apart: eight hex digits over the weights; where they are gone, the place where they were."""
    where = run.teacher_weights()
    try:
        return where and sha256_of(local_file(where, "teacher weights"))[:8]
    except (OSError, UserError):
        return where


def _setting(table: pd.DataFrame, settings: Sequence[str]) -> "pd.Series[str]":
    """The values of these keys as one text per trial: lists can be grouped by it, and null is a value like others."""
    return table[list(settings)].apply(lambda row: json.dumps(row.tolist(), default=str), axis=1)
