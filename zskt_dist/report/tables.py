"""The paper's tables from groups of runs, as data frames."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import entr
from scipy.stats import binom

from zskt_dist.markup import plain
from zskt_dist.report import paper
from zskt_dist.report.paper import Pair
from zskt_dist.report.runs import WITHOUT_DATA, Group, Run, Spread

NAMES = {
    "teacher": "teacher",
    "scratch": "scratch (no teacher)",
    "distill": "KD+AT",
    "train": "zero-shot",
    "inversion": "inversion",
    "finetune": "zero-shot + finetuning",
}
MISSING = "missing"
"""Of a cell that no run fills; the commands below the table would."""
Row = dict[str, Any]


def setting(group: Group) -> str:
    """As in `KD+AT, M = 10 [distill.beta=60]`."""
    many = group.images_per_class
    special = f" [{group.label}]" if group.changes else ""
    return NAMES[group.method] + (f", M = {many}" if many is not None else "") + special


def arrow(pair: Pair) -> str:
    return " → ".join(filter(None, pair))


def pairs_of(groups: Sequence[Group]) -> list[tuple[str, Pair]]:
    """(data set, pair) of all students that learnt from a teacher and were measured."""
    taught = [group for group in groups if group.method in (*WITHOUT_DATA, "distill", "finetune") and group.accuracy]
    return list(dict.fromkeys((group.dataset, group.pair) for group in taught))


def choose(groups: Sequence[Group], dataset: str, method: str, pair: Pair) -> Group | None:
    """The group that stands for a method in Table 1, none but those of the reference recipe.

    KD+AT with M = 200, as in the paper, else with the largest M, else with all images; scratch with all images.
    """
    whose = {"teacher": (pair[0], None), "scratch": (None, pair[1])}.get(method, pair)
    mine = [g for g in groups if (g.dataset, g.method, g.pair) == (dataset, method, whose) and not g.changes]
    if method == "distill":
        few = [group for group in mine if group.images_per_class is not None]
        mine = [group for group in few if group.images_per_class == 200] or few or mine
    elif method == "scratch":
        mine = [group for group in mine if group.images_per_class is None]
    return max(mine, key=lambda group: group.images_per_class or 0, default=None)


def summary(groups: Sequence[Group]) -> pd.DataFrame:
    """One row per setting: what was run, and what came out."""
    rows = []
    for group in groups:
        result = group.first.result
        rows.append(
            {
                "data": group.dataset,
                "method": setting(group),
                "network": arrow(group.pair),
                "n": len(group.runs),
                "accuracy %": show(group.accuracy),
                "agreement %": show(group.spread(lambda run: _agreement(run.result["student"]))),
                "ECE": show(group.spread(_ece), 3),
                "MTE": _transition_errors(group),
                "iterations": f"{result['iterations']:,}",
                "seconds": show(group.spread(lambda run: run.result["seconds"]), 0),
                "config": group.hashes,
            }
        )
    return pd.DataFrame(rows)


def table_1_methods(groups: Sequence[Group]) -> tuple[str, ...]:
    """The methods of Table 1, and inversion, which the paper lacks, where it was run."""
    also = ("inversion",) if any(group.method == "inversion" for group in groups) else ()
    return ("scratch", "distill", "train", *also)


def table_1(groups: Sequence[Group]) -> pd.DataFrame:
    """Accuracy of every pair and method, beside the paper's where everything is as there."""
    rows = []
    for dataset, pair in pairs_of(groups):
        row: Row = {"data": dataset, "teacher → student": arrow(pair)}
        hashes = {}
        chosen = {method: choose(groups, dataset, method, pair) for method in table_1_methods(groups)}
        teachers = _teachers(groups, dataset, pair, [g for method, g in chosen.items() if g and method != "scratch"])
        for method, group in {"teacher": None, **chosen}.items():
            column = NAMES[method] + (" (M)" if method == "distill" else "")
            spread = teachers[0] if method == "teacher" else _accuracy(group)
            if spread is None:
                row[column] = MISSING
                continue
            many = f" (M={group.images_per_class or 'all'})" if group and method == "distill" else ""
            row[column] = f"{show(spread)} (n={spread.n}){many}"
            hashes[method] = group.hashes if group else teachers[1]
            reported = paper.accuracy(method, dataset, pair, group.images_per_class if group else None)
            as_there = group.is_paper_setting if group else teachers[2]
            if reported and as_there:
                row |= {f"{NAMES[method]}: {name}": text for name, text in _compared(spread, reported).items()}
        row["config"] = "; ".join(f"{NAMES[method]} {text}" for method, text in hashes.items() if text)
        rows.append(row)
    frame = pd.DataFrame(rows).fillna("")
    return frame[[*frame.columns.drop("config", errors="ignore"), "config"]] if rows else frame


def figure_2(groups: Sequence[Group]) -> pd.DataFrame:
    """Accuracy against images per class: every group of every pair of which one has seen M images per class."""
    rows = []
    for dataset, pair in pairs_with_few_images(groups):
        for group in (group for group in groups if group.belongs_to(dataset, pair)):
            many = group.images_per_class
            reported = paper.figure_2(group.method, dataset, pair, many) if group.is_paper_setting else None
            name = NAMES[group.method] + (f" [{group.label}]" if group.label else "")
            rows.append(_figure_2_row(dataset, pair, name, many, group, reported))
        if vid := paper.figure_2("vid", dataset, pair, 100):
            rows.append(_figure_2_row(dataset, pair, "VID (Ahn et al. 2019)", 100, None, vid))
    return pd.DataFrame(rows)


def pairs_with_few_images(groups: Sequence[Group]) -> list[tuple[str, Pair]]:
    """Pairs with a run that has seen M images per class."""
    few = [group for group in groups if group.images_per_class is not None]
    return [(data, pair) for data, pair in pairs_of(groups) if any(group.belongs_to(data, pair) for group in few)]


def table_2(groups: Sequence[Group]) -> pd.DataFrame:
    """Mean transition errors, with everything they depend on; one row for each way of measuring."""
    rows = []
    for group in groups:
        for measure, runs in group.measures().items():
            spread = Spread.of(run.mte["value"] for run in runs if run.mte)
            assert spread
            reported = paper.transition_error(group.method, group.dataset, group.pair, group.images_per_class)
            as_there = group.is_paper_setting and measure == (100, 1, "student", "agreed")
            rows.append(
                {
                    "data": group.dataset,
                    "pair": arrow(group.pair),
                    "student": setting(group),
                    "MTE": show(spread, 3),
                    "n": spread.n,
                    "K": measure.steps,
                    "ξ": f"{measure.step_size:g}",
                    "N": _range([run.mte["images"] for run in runs if run.mte]),
                    "stepped": measure.stepped,
                    "skipped class": measure.skip,
                    **_compared(spread, reported if as_there else None, 3),
                    "config": group.hashes,
                }
            )
    return pd.DataFrame(rows)


def pseudo_data(groups: Sequence[Group]) -> pd.DataFrame:
    """Section 4.3: confidence and class entropy on pseudo-images, averaged over the run."""
    rows = []
    for group in (group for group in groups if group.method == "train"):
        classes, batch = group.first.num_classes, group.first.config.batch_size
        for who in ("teacher", "student"):
            confidence, entropy = (
                group.spread(partial(_mean, name=f"{who}_{what}")) for what in ("confidence", "class_entropy")
            )
            if confidence is None:
                continue
            reported = paper.CONFIDENCE[who] if group.is_paper_setting else None
            rows.append(
                {
                    "data": group.dataset,
                    "setting": setting(group),
                    "network": f"{who} {group.first.result[who]['arch']}",
                    "n": confidence.n,
                    "top probability": show(confidence, 3),
                    "paper": "" if reported is None else f"{reported:.1f}",
                    "difference": "" if reported is None else f"{confidence.mean - reported:+.3f}",
                    "entropy of predicted classes": show(entropy, 3),
                    "uniform in such batches": f"{uniform_entropy(classes, batch):.3f}",
                    "batch": batch,
                    "log C": f"{math.log(classes):.3f}",
                    "config": group.hashes,
                }
            )
    return pd.DataFrame(rows)


def uniform_entropy(classes: int, batch: int) -> float:
    """Expected entropy, in nats, of the class frequencies in a batch whose predictions are uniform over the classes.

    Frequencies of few draws are less even than what they are drawn from: the expectation is below log C, by about
    (C - 1) / (2 batch). Each count is binomial, so E[H] = -C sum_k P(k) (k / batch) log(k / batch) exactly; `entr` is
    -x log(x).
    """
    k = np.arange(batch + 1)
    return float(classes * binom.pmf(k, batch, 1 / classes) @ entr(k / batch))


def show(spread: Spread | None, digits: int = 2) -> str:
    if spread is None:
        return ""
    deviation = f" ± {spread.std:.{digits}f}" if spread.n > 1 else ""
    return f"{spread.mean:.{digits}f}{deviation}"


def show_reported(reported: paper.Reported) -> str:
    return f"{reported.mean:.2f}" + (f" ± {reported.std:.2f}" if reported.std is not None else "")


def _compared(spread: Spread | None, reported: paper.Reported | None, digits: int = 2) -> Row:
    """The columns of the paper's number and of the distance to it, empty where there is none."""
    return {
        "paper": show_reported(reported) if reported else "",
        "difference": f"{spread.mean - reported.mean:+.{digits}f}" if spread and reported else "",
    }


def markdown(frame: pd.DataFrame) -> str:
    """A pipe table."""
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(plain(str(cell)) for cell in line) + " |" for line in lines)


def _teachers(
    groups: Sequence[Group], dataset: str, pair: Pair, students: Sequence[Group]
) -> tuple[Spread | None, str, bool]:
    """Accuracy of the teachers that the students learnt from, their hashes, and whether they are the paper's.

    Each teacher counts once, however many students it had; without students those of the reference recipe.
    """
    if not students:
        group = choose(groups, dataset, "teacher", pair)
        return (group.accuracy, group.hashes, group.is_paper_setting) if group else (None, "", False)
    used = {run.teacher: _percent(run.result["teacher"]["accuracy"]) for group in students for run in group.runs}
    trained = [run for group in groups if group.method == "teacher" for run in group.runs if run.teacher in used]
    hashes = ", ".join(sorted({str(run.result["config_hash"]) for run in trained}))
    return Spread.of(used.values()), hashes, all(group.is_paper_setting for group in students)


def _figure_2_row(
    dataset: str, pair: Pair, method: str, many: int | None, group: Group | None, reported: paper.Reported | None
) -> Row:
    accuracy = _accuracy(group)
    many_seen: int | str = many or "all"
    if group is not None and group.method in WITHOUT_DATA:
        given = group.first.seed_images
        many_seen = f"{given:,} unlabelled" if given else 0
    return {
        "data": dataset,
        "pair": arrow(pair),
        "method": method,
        "M": many_seen,
        "accuracy %": show(accuracy),
        "n": accuracy.n if accuracy else "",
        **_compared(accuracy, reported),
        "config": group.hashes if group else "",
    }


def _accuracy(group: Group | None) -> Spread | None:
    return group.accuracy if group else None


def _transition_errors(group: Group) -> str:
    """One value, or one for each way of measuring."""
    measures = group.measures()
    texts: Iterator[str] = (
        show(Spread.of(run.mte["value"] for run in runs if run.mte), 3)
        + (f" (K = {how.steps}, ξ = {how.step_size:g}, {how.stepped}, {how.skip})" if len(measures) > 1 else "")
        for how, runs in measures.items()
    )
    return "; ".join(texts)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _agreement(student: dict[str, float] | None) -> float | None:
    return _percent(student["agreement"]) if student else None


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _ece(run: Run) -> float | None:
    values = run.evaluation.get("calibration")
    return values["student" if "student" in values else "teacher"]["ece"] if values else None


def _mean(run: Run, name: str) -> float | None:
    values = [row[name] for row in run.history if name in row]
    return sum(values) / len(values) if values else None
