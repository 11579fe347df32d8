"""The paper's tables from groups of runs, as data frames."""

import math
import shlex
from collections.abc import Sequence
from functools import partial

import pandas as pd

from zskt_dist.report import paper
from zskt_dist.report.runs import Group, Run, Spread

NAMES = {
    "teacher": "teacher",
    "scratch": "scratch (no teacher)",
    "distill": "KD+AT",
    "train": "zero-shot",
    "finetune": "zero-shot + finetuning",
}
Pair = tuple[str | None, str | None]


def setting(group: Group) -> str:
    """As in `KD+AT, M = 10`."""
    many = group.images_per_class
    return NAMES[group.method] + (f", M = {many}" if many is not None else "")


def pairs_of(groups: Sequence[Group]) -> list[tuple[str, Pair]]:
    """(data set, pair) of all zero-shot and KD+AT runs."""
    seen = {(group.dataset, group.first.pair): None for group in groups if group.method in ("train", "distill")}
    return list(seen)


def summary(groups: Sequence[Group]) -> pd.DataFrame:
    """One row per setting: what was run, and what came out."""
    rows = []
    for group in groups:
        result = group.first.result
        teacher, student = group.first.pair
        rows.append(
            {
                "data": group.dataset,
                "method": setting(group),
                "network": f"{teacher} → {student}" if teacher and student else student or teacher,
                "n": len(group.runs),
                "accuracy %": show(group.accuracy),
                "agreement %": show(group.spread(lambda run: _agreement(run.result["student"]))),
                "ECE": show(group.spread(lambda run: _ece(run.evaluation)), 3),
                "MTE": show(group.spread(lambda run: (run.result["mte"] or {}).get("value")), 3),
                "iterations": f"{result['iterations']:,}",
                "seconds": show(group.spread(lambda run: run.result["seconds"]), 0),
                "config": group.hashes,
            }
        )
    return pd.DataFrame(rows)


def table_1(groups: Sequence[Group]) -> pd.DataFrame:
    """Accuracy of every pair and method, beside the paper's where the settings agree."""
    rows = []
    for dataset, pair in pairs_of(groups):
        mine = [group for group in groups if group.dataset == dataset]
        row: dict[str, object] = {"data": dataset, "teacher → student": f"{pair[0]} → {pair[1]}"}
        for method in ("teacher", "scratch", "distill", "train"):
            group = _choose(mine, method, pair)
            if group is None:
                row[NAMES[method]] = _missing(method, mine, pair)
                continue
            name = NAMES[method] + (" (M)" if method == "distill" else "")
            row[name] = show(group.accuracy) + f" (n={group.accuracy.n})"
            if method == "distill":
                row[name] = f"{row[name]} (M={group.images_per_class or 'all'})"
            reported = paper.accuracy(method, dataset, group.first.pair, group.images_per_class)
            if reported and is_paper_setting(group):
                row[f"{NAMES[method]}: paper"] = f"{reported.mean:.2f}"
                row[f"{NAMES[method]}: difference"] = f"{group.accuracy.mean - reported.mean:+.2f}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def table_2(groups: Sequence[Group]) -> pd.DataFrame:
    """Mean transition errors, with everything they depend on."""
    rows = []
    for group in groups:
        spread = group.spread(lambda run: (run.result["mte"] or {}).get("value"))
        if spread is None:
            continue
        mte = next(run.result["mte"] for run in group.runs if run.result["mte"])
        reported = paper.transition_error(group.method, group.dataset, group.first.pair)
        comparable = reported is not None and is_paper_setting(group) and (mte["steps"], mte["step_size"]) == (100, 1)
        rows.append(
            {
                "data": group.dataset,
                "pair": " → ".join(filter(None, group.first.pair)),
                "student": setting(group),
                "MTE": show(spread, 3),
                "n": spread.n,
                "K": mte["steps"],
                "ξ": f"{mte['step_size']:g}",
                "N": mte["images"],
                "stepped": mte["stepped"],
                "paper": f"{reported.mean:.2f}" if comparable and reported else "",
                "difference": f"{spread.mean - reported.mean:+.3f}" if comparable and reported else "",
                "config": group.hashes,
            }
        )
    return pd.DataFrame(rows)


def pseudo_data(groups: Sequence[Group]) -> pd.DataFrame:
    """Section 4.3: confidence and class entropy on pseudo-images, averaged over the run."""
    rows = []
    for group in (group for group in groups if group.method == "train"):
        classes = len((group.first.evaluation or {}).get("confusion", {}).get("student", [])) or 10
        for who in ("teacher", "student"):
            confidence, entropy = (
                group.spread(partial(_mean, name=f"{who}_{what}")) for what in ("confidence", "class_entropy")
            )
            rows.append(
                {
                    "data": group.dataset,
                    "network": f"{who} {group.first.result[who]['arch']}",
                    "top probability": show(confidence, 3),
                    "paper (CIFAR-10, SVHN)": f"{paper.CONFIDENCE[who]:.1f}",
                    "entropy of predicted classes": show(entropy, 3),
                    "uniform would be": f"{math.log(classes):.3f}",
                    "n": len(group.runs),
                }
            )
    return pd.DataFrame(rows)


def is_paper_setting(group: Group) -> bool:
    """Whether a group ran as long as the paper's, on its data."""
    return group.first.result["iterations"] == paper.ITERATIONS.get(group.dataset)


def show(spread: Spread | None, digits: int = 2) -> str:
    if spread is None:
        return ""
    deviation = f" ± {spread.std:.{digits}f}" if spread.n > 1 else ""
    return f"{spread.mean:.{digits}f}{deviation}"


def markdown(frame: pd.DataFrame) -> str:
    """A pipe table."""
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def fill_command(command: str, groups: Sequence[Group], pair: Pair, *overrides: str) -> str:
    """The command that would make a missing run, from the configuration of a run that is there."""
    known = [group for group in groups if group.first.pair == pair and group.method in ("train", "distill")]
    if not known:
        return f"python -m zskt_dist.{command}"
    config = known[0].first.directory.config
    shown = config.relative_to(config.parents[3]) if len(config.parents) > 3 else config
    return shlex.join(["python", "-m", f"zskt_dist.{command}", "--config", str(shown), "name=null", *overrides])


def _missing(method: str, groups: Sequence[Group], pair: Pair) -> str:
    command, overrides = {
        "teacher": ("pretrain", ()),
        "scratch": ("pretrain", ("supervised.network=student",)),
        "distill": ("distill", ("data.images_per_class=200",)),
        "train": ("train", ()),
    }[method]
    return f"`{fill_command(command, groups, pair, *overrides)}`"


def _choose(groups: Sequence[Group], method: str, pair: Pair) -> Group | None:
    """The group for a cell: with the paper's M where there are several, else the largest."""
    place = {"teacher": (pair[0], None), "scratch": (None, pair[1])}.get(method, pair)
    fitting = [group for group in groups if group.method == method and group.first.pair == place]
    if method == "distill":
        few = [group for group in fitting if group.images_per_class is not None]
        fitting = [group for group in few if group.images_per_class == 200] or few or fitting
    if method == "scratch":
        fitting = [group for group in fitting if group.images_per_class is None]
    return max(fitting, key=lambda group: (group.images_per_class or 0, len(group.runs)), default=None)


def _agreement(student: dict[str, float] | None) -> float | None:
    return 100 * student["agreement"] if student and student["agreement"] is not None else None


def _ece(evaluation: dict[str, dict[str, dict[str, float]]] | None) -> float | None:
    if evaluation is None:
        return None
    values = evaluation["calibration"]
    return values["student" if "student" in values else "teacher"]["ece"]


def _mean(run: Run, name: str) -> float | None:
    values = [row[name] for row in run.history if name in row]
    return sum(values) / len(values) if values else None
