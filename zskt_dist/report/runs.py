"""Finished runs, read from their directories and grouped by what they have in common."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from zskt_dist.config import Config
from zskt_dist.errors import UserError, one_line
from zskt_dist.files import read_json
from zskt_dist.report import paper
from zskt_dist.report.paper import Pair
from zskt_dist.report.recipes import SEED_IMAGES, Recipe, central, changes, key_of, label, recipe_of
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import is_uri
from zskt_dist.tasks.stages import stages
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.local import read_history

log = logging.getLogger(__name__)

Result = dict[str, Any]
METHODS = ("teacher", "scratch", "distill", "train", "inversion", "finetune")
WITHOUT_DATA = ("train", "inversion")
"""Methods that read no data set: Algorithm 1 and inversion, which the user may give images (`Run.seed_images`)."""


class Spread(NamedTuple):
    """Mean and population standard deviation (ddof = 0, as the paper's) over n runs."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, numbers: Iterable[float | None]) -> "Spread | None":
        """Over the numbers that are there; None where none is."""
        known = [number for number in numbers if number is not None]
        return cls(fmean(known), pstdev(known), len(known)) if known else None


class Measure(NamedTuple):
    """How transition curves were measured: only those of one measure can be averaged or compared."""

    steps: int
    step_size: float
    stepped: str
    skip: str


@dataclass(frozen=True)
class Run:
    """One finished run; what is large is read when it is asked for."""

    directory: RunDirectory
    result: Result
    config: Config
    lent: bool = False
    """True if its directory is a download, which goes away: no command can name it."""

    @property
    def method(self) -> str:
        """`teacher`, `scratch`, `distill`, `train` (Algorithm 1), `inversion` or `finetune`."""
        if self.result["command"] == "pretrain":
            return "scratch" if self.result["student"] else "teacher"
        command = str(self.result["command"])
        return "inversion" if command == "train" and self.config.method == "inversion" else command

    @property
    def seed(self) -> int:
        return int(self.result["seed"])

    @property
    def accuracy(self) -> float | None:
        """Of the network this run trained, in percent; the last iterate. None where it had no test images."""
        entry = self.result["student"]
        value = entry["accuracy_last"] if entry else self.result["teacher"]["accuracy"]
        return None if value is None else 100 * float(value)

    @property
    def pair(self) -> Pair:
        teacher, student = self.result["teacher"], self.result["student"]
        return teacher and teacher["arch"], student and student["arch"]

    @property
    def seed_images(self) -> int:
        """Number of images without labels that the user gave it."""
        return int((self.result.get("seed_images") or {}).get("images", 0))

    @cached_property
    def recipe(self) -> Recipe:
        return recipe_of(self.config, self.method)

    @cached_property
    def teacher(self) -> str:
        """Which teacher it learnt from: where its weights were, or would be; a teacher's run is its own."""
        if self.method == "teacher":
            return str(self.result["name"])  # a download's folder has another
        where = Path(self.directory.teacher_weights() or self.config.teacher.checkpoint or _cached_teacher(self.config))
        return where.parent.name if where.parent.parent.name == "teachers" else str(where)

    @cached_property
    def evaluation(self) -> Result:
        """What `evaluate` has measured; empty before."""
        return read_json(self.directory.evaluation / "evaluation.json") or {}

    @property
    def mte(self) -> Result | None:
        """The mean transition error with what it depends on, from the same file as the curves."""
        mte = self.evaluation.get("mte")
        return mte if mte and mte["value"] is not None else None

    @property
    def measure(self) -> Measure | None:
        if (mte := self.mte) is None:
            return None
        return Measure(mte["steps"], mte["step_size"], mte["stepped"], mte["skip"])

    @property
    def num_classes(self) -> int:
        return int(self.result["num_classes"])

    @cached_property
    def history(self) -> list[Row]:
        return read_history(self.directory.history)

    @cached_property
    def ended(self) -> float:
        """When its training ended, in seconds; `result.json` is younger where a run has been evaluated."""
        moment = self.history[-1].get("time") if self.history else None
        return moment / 1000 if moment else self.directory.result.stat().st_mtime

    def read(self) -> None:
        """Reads all that there is of the run; raises whatever damaged files lead to."""
        _ = self.seed, self.accuracy, self.pair, self.seed_images, self.recipe, self.teacher, self.measure, self.ended


@dataclass(frozen=True)
class Group:
    """Runs of one recipe, each with a seed of its own."""

    runs: tuple[Run, ...]
    changes: Recipe
    """What the recipe has other than the one it is compared with."""
    of_paper: bool
    """True if that one is the paper's; else it is the central one of the runs that were found."""
    dropped: tuple[Run, ...] = ()
    """Older runs with the seed of another."""

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
    def pair(self) -> Pair:
        return self.first.pair

    @property
    def images_per_class(self) -> int | None:
        count: int | None = self.first.result["images_per_class"]
        return count

    @property
    def label(self) -> str:
        """What is special about it, as `key=value, …`; empty for what others are compared with."""
        return label(self.changes)

    @property
    def is_paper_setting(self) -> bool:
        """True if everything that matters is as in the paper, so that the numbers can be compared."""
        return self.of_paper and not self.changes

    @property
    def hashes(self) -> str:
        return ", ".join(sorted({str(run.result["config_hash"]) for run in self.runs}))

    @property
    def accuracy(self) -> Spread | None:
        return self.spread(lambda run: run.accuracy)

    def spread(self, value: Callable[[Run], float | None]) -> Spread | None:
        """Over the runs that have the value; None where none has."""
        return Spread.of(value(run) for run in self.runs)

    def measures(self) -> dict[Measure, list[Run]]:
        """The evaluated runs by how their transition curves were measured."""
        found: dict[Measure, list[Run]] = {}
        for run in self.runs:
            if run.measure:
                found.setdefault(run.measure, []).append(run)
        return found

    def belongs_to(self, dataset: str, pair: Pair) -> bool:
        """True if it has a place beside a pair: its own runs, its teacher's, its student's from scratch."""
        return self.dataset == dataset and self.pair in (pair, (pair[0], None), (None, pair[1]))


def find_runs(places: Iterable[Path | str], *, lent: Path | None = None) -> list[Run]:
    """Finished single runs in and below the folders, each once; those of several seeds stand for themselves.

    What `--fresh` has put aside is passed over, unless it is named itself.

    Args:
        places: Folders, and URIs of run directories as `stored_runs` lists them.
        lent: A folder of downloads.
    """
    found: dict[Path, Run] = {}
    for place in places:
        for directory in _directories(place):
            result = directory.finished()
            if result is not None and "seeds" not in result and directory.path not in found:
                found |= {run.directory.path: run for run in _read(directory, result, lent)}
            for name in (result or {}).get("runs", []) if isinstance(place, Path) else ():
                found |= {run.directory.path: run for run in find_runs([directory.path.with_name(name)], lent=lent)}
    return list(found.values())


def _directories(place: Path | str) -> Iterator[RunDirectory]:
    """In and below a folder; of a URI none but itself, for its working copy may have what the store has lost."""
    if isinstance(place, str):
        yield RunDirectory(place)
        return
    for file in sorted({place / "result.json", *place.rglob("result.json")}):
        if not any(".before-" in part for part in file.relative_to(place).parts):
            yield RunDirectory(file.parent.absolute())


def _read(directory: RunDirectory, result: Result, lent: Path | None) -> Iterator[Run]:
    """The run; none, with a warning, where its configuration cannot be read, or where it learnt from pseudo-data.

    That is no method of the paper, and there may be no teacher to compare with.
    """
    try:
        directory.check_links()
        config = directory.read_config()
    except UserError as error:
        log.warning("left out of the report: %s", error)
        return
    if config is not None and config.pseudo_data is not None and result["command"] == "train":
        return
    if (method := str(result["command"])) not in (*METHODS, "pretrain"):
        log.warning(
            "left out of the report: %s is a run of %s, which is no method of the paper", directory.path, method
        )
        return
    if config is not None and "dataset" in result and "seed" in result:
        fetched = lent is not None and directory.path.is_relative_to(lent.absolute())
        run = Run(directory, result, config, fetched or is_uri(directory.location))
        try:
            run.read()
        except UserError as error:
            log.warning("left out of the report: %s", error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # foreign JSON may lack anything
            log.warning("left out of the report: %s is damaged: %s", directory.path, one_line(error))
        else:
            yield run


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Runs that differ in their seed alone, together; in the order of data set, method, M, what is special."""
    families: dict[tuple[str, str, Pair], list[Run]] = {}
    for run in runs:
        families.setdefault((str(run.result["dataset"]), run.method, run.pair), []).append(run)
    groups = [
        group for (dataset, method, pair), family in families.items() for group in _split(dataset, method, pair, family)
    ]

    def place(group: Group) -> tuple[Any, ...]:
        many = group.images_per_class
        pair = tuple(arch or "" for arch in group.pair)
        return (
            group.dataset,
            METHODS.index(group.method),
            pair,
            many is None,
            many or 0,
            bool(group.changes),
            group.label,
        )

    return sorted(groups, key=place)


def reference_recipe(dataset: str, method: str, pair: Pair, runs: Iterable[Run]) -> Recipe:
    """What runs of a method are compared with: the paper's recipe, else the central one of these runs.

    No run is the reference for having images that a user gave.
    """
    if config := _of_paper(dataset, method, pair):
        return recipe_of(config, method)
    found = central([run.recipe for run in runs], method)
    return {key: None if key == SEED_IMAGES else value for key, value in found.items()}


def _of_paper(dataset: str, method: str, pair: Pair) -> Config | None:
    """The paper's settings of a method; it has none of inversion."""
    return None if method == "inversion" else paper.configuration(dataset, pair)


def _split(dataset: str, method: str, pair: Pair, family: list[Run]) -> Iterator[Group]:
    reference = reference_recipe(dataset, method, pair, family)
    of_paper = _of_paper(dataset, method, pair) is not None
    members: dict[tuple[int | None, str], list[Run]] = {}
    for run in family:
        members.setdefault((run.result["images_per_class"], key_of(run.recipe)), []).append(run)
    for equal in members.values():
        newest: dict[int, Run] = {}
        # Only where a seed is there twice, it matters which run is newer; the path decides between equals.
        twice = len({run.seed for run in equal}) < len(equal)
        for run in sorted(equal, key=lambda run: (run.ended, str(run.directory.path))) if twice else equal:
            newest[run.seed] = run
        kept = tuple(newest[seed] for seed in sorted(newest))
        dropped = tuple(run for run in equal if all(run is not one for one in kept))
        yield Group(kept, changes(kept[0].recipe, reference), of_paper, dropped)


def _cached_teacher(config: Config) -> str:
    """Where the teacher would be that a configuration trains."""
    (stage,) = (each for each in stages("distill", config) if each.task.role == "teacher")
    return str(stage.directory.weights("teacher"))
