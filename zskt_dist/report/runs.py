"""Finished runs, read from their directories and grouped by what they have in common."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from zskt_dist.config import config_hash
from zskt_dist.files import read_json
from zskt_dist.runtime.directory import RunDirectory
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.local import read_history

Result = dict[str, Any]


class Spread(NamedTuple):
    """Mean and population standard deviation (ddof = 0, as the paper's) over n runs."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Run:
    """One finished run; what is large is read when it is asked for."""

    directory: RunDirectory
    result: Result

    @property
    def method(self) -> str:
        """`teacher`, `scratch`, `distill`, `train` (zero-shot) or `finetune`."""
        if self.result["command"] == "pretrain":
            return "scratch" if self.result["student"] else "teacher"
        return str(self.result["command"])

    @property
    def accuracy(self) -> float:
        """Of the network this run trained, in percent; the last iterate."""
        entry = self.result["student"]
        value = entry["accuracy_last"] if entry else self.result["teacher"]["accuracy"]
        return 100 * float(value)

    @property
    def pair(self) -> tuple[str | None, str | None]:
        teacher, student = self.result["teacher"], self.result["student"]
        return teacher and teacher["arch"], student and student["arch"]

    @cached_property
    def evaluation(self) -> Result | None:
        answer = read_json(self.directory.evaluation / "evaluation.json")
        return answer if isinstance(answer, dict) else None

    @cached_property
    def history(self) -> list[Row]:
        return read_history(self.directory.history)

    @cached_property
    def identity(self) -> str:
        """Equal for runs that differ in their seed alone."""
        config = self.directory.read_config()
        if config is None:
            return str(self.result["config_hash"])
        command = str(self.result["command"])
        alike = config.model_copy(update={"seed": 0, "seeds": None})
        return config_hash(alike, command) if command != "pretrain" or self.result["student"] else self._teacher()

    def _teacher(self) -> str:
        return f"{self.result['teacher']['arch']}-{self.result['iterations']}"


@dataclass(frozen=True)
class Group:
    """Runs of one setting with several seeds."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def method(self) -> str:
        return self.first.method

    @property
    def dataset(self) -> str:
        return str(self.first.result["dataset"])

    @property
    def images_per_class(self) -> int | None:
        count: int | None = self.first.result["images_per_class"]
        return count

    @property
    def hashes(self) -> str:
        return ", ".join(sorted({str(run.result["config_hash"]) for run in self.runs}))

    @property
    def accuracy(self) -> Spread:
        spread = self.spread(lambda run: run.accuracy)
        assert spread
        return spread

    def spread(self, value: Callable[[Run], float | None]) -> Spread | None:
        """Over the runs that have the value; None where none has."""
        numbers = [number for run in self.runs if (number := value(run)) is not None]
        return Spread(fmean(numbers), pstdev(numbers), len(numbers)) if numbers else None


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Finished single runs in and below the folders, each once; those of several seeds stand for themselves."""
    found: dict[Path, Run] = {}
    for path in paths:
        for file in sorted([path / "result.json", *path.rglob("result.json")]):
            directory = RunDirectory(file.parent.absolute())
            result = directory.finished()
            known = result is not None and "seeds" not in result and "dataset" in result
            if result is not None and known and directory.config.exists():
                found.setdefault(directory.path, Run(directory, result))
            for name in (result or {}).get("runs", []):
                found |= {run.directory.path: run for run in find_runs([file.parent.with_name(name)])}
    return list(found.values())


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Runs that differ in their seed alone, together; in the order of data set, method, M."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        key = (run.result["dataset"], run.method, run.pair, run.result["images_per_class"], run.identity)
        groups.setdefault(key, []).append(run)
    order = ("teacher", "scratch", "distill", "train", "finetune")

    def place(group: Group) -> tuple[Any, ...]:
        many = group.images_per_class
        return group.dataset, order.index(group.method), many is None, many or 0, str(group.first.pair)

    return sorted((Group(tuple(sorted(g, key=lambda run: run.result["seed"]))) for g in groups.values()), key=place)
