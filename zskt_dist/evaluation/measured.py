"""What was measured of a finished run's network on labelled test images, its own or those that `evaluate` was given."""

from pathlib import Path
from typing import Any, NamedTuple

from zskt_dist.files import read_json
from zskt_dist.runs.directory import Result, RunDirectory


class Measured(NamedTuple):
    """Numbers of one data set."""

    dataset: str
    """As `result.json` calls it."""
    answer: dict[str, Any]
    """By the names of `evaluation.json`; what has not been measured is missing or None."""
    folder: Path
    """Where the evaluation has its files, if there was one."""


def measured(directory: RunDirectory, result: Result, role: str, sha256: str) -> list[Measured]:
    """The run's own numbers, or where it had no test images those of data that `evaluate` was given.

    Args:
        sha256: Of the network's weights: numbers of others are left out.
    """
    folder = directory.evaluation
    teacher, student = result["teacher"] or {}, result["student"] or {}
    own = {
        "accuracy": student.get("accuracy_last"),
        "teacher_accuracy": teacher.get("accuracy"),
        "agreement": student.get("agreement"),
        "mte": result.get("mte"),
    }
    if own["accuracy"] is not None or own["teacher_accuracy"] is not None:
        return [Measured(result["dataset"], (read_json(folder / "evaluation.json") or {}) | own, folder)]
    answers = [(path.parent, read_json(path) or {}) for path in sorted(folder.glob("other-*/evaluation.json"))]
    return [
        Measured(_data_set(answer["settings"]["data"]), answer, place)
        for place, answer in answers
        if answer.get("settings", {}).get("weights", {}).get(role) == sha256
    ]


def _data_set(data: dict[str, Any]) -> str:
    return str(data["name"] if data["name"] != "parquet" else Path(data["root"]).name)
