"""What networks say to uniform noise (Figure 5, Appendix 2)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from zskt_dist.config.keys import is_under
from zskt_dist.report.paper import Pair
from zskt_dist.report.recipes import label
from zskt_dist.report.runs import Group
from zskt_dist.report.tables import arrow, setting
from zskt_dist.tasks.registry import TASKS


class Predictions(NamedTuple):
    """How often a network predicts each class, mean over its seeds."""

    network: str
    method: str
    shares: np.ndarray
    """[C]"""
    n: int
    hashes: str
    special: bool
    """True if its recipe is other than the reference's."""


def predictions_of(groups: Sequence[Group], dataset: str, pair: Pair) -> list[Predictions]:
    """Of the teachers of a pair, and of every evaluated group of its students."""
    mine = [group for group in groups if group.belongs_to(dataset, pair)]
    return [*_teachers(mine), *(found for group in mine if (found := _students(group)))]


def figure_5(found: Sequence[Predictions], dataset: str, pair: Pair) -> pd.DataFrame:
    """The bars as numbers, one row per network and class."""
    rows = [
        {
            "data": dataset,
            "pair": arrow(pair),
            "network": one.network,
            "n": one.n,
            "class": number,
            "share": round(float(share), 6),
            "config": one.hashes,
        }
        for one in found
        for number, share in enumerate(one.shares)
    ]
    return pd.DataFrame(rows)


def _students(group: Group) -> Predictions | None:
    shares = [noise["student"] for run in group.runs if "student" in (noise := run.evaluation.get("noise") or {})]
    if not shares:
        return None
    name = f"{group.pair[1]}, {setting(group)}"
    return Predictions(name, group.method, np.mean(shares, axis=0), len(shares), group.hashes, bool(group.changes))


def _teachers(groups: Sequence[Group]) -> list[Predictions]:
    """Each teacher once, however many students were measured beside it; those of another recipe apart."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for group in groups:
        special = {k: v for k, v in group.changes.items() if is_under(k, (*TASKS["pretrain"].reads, "teacher"))}
        name = f"teacher {group.pair[0]}" + (f" [{label(special)}]" if special else "")
        for run in group.runs:
            if "teacher" in (noise := run.evaluation.get("noise") or {}):
                found.setdefault(name, {}).setdefault(run.teacher, []).append(noise["teacher"])
    hashes = {run.teacher: str(run.result["config_hash"]) for g in groups if g.method == "teacher" for run in g.runs}
    return [
        Predictions(
            name,
            "teacher",
            np.mean([np.mean(shares, axis=0) for shares in teachers.values()], axis=0),
            len(teachers),
            ", ".join(sorted({hashes[teacher] for teacher in teachers if teacher in hashes})),
            name.endswith("]"),
        )
        for name, teachers in found.items()
    ]
