"""What the report lacks, and the commands that would make it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zskt_dist.config import Config, flatten, with_overrides
from zskt_dist.config.keys import is_under
from zskt_dist.report import paper
from zskt_dist.report.paper import Pair
from zskt_dist.report.recipes import ABSENT, TASKS_OF, Recipe, changes, recipe_of, words
from zskt_dist.report.runs import WITHOUT_DATA, Group, Run, reference_recipe
from zskt_dist.report.tables import NAMES, arrow, choose, pairs_of, pairs_with_few_images, table_1_methods
from zskt_dist.runs.locations import is_uri, join
from zskt_dist.tasks.registry import TASKS

_FEW = ("scratch", "distill", "finetune")
"""Methods that see M images per class."""


class Gap(NamedTuple):
    """Something that was not run."""

    what: str
    command: str


def table_1_gaps(groups: Sequence[Group]) -> Iterator[Gap]:
    """Empty cells of Table 1."""
    for dataset, pair in pairs_of(groups):
        mine = [group for group in groups if group.belongs_to(dataset, pair)]
        for method in table_1_methods(groups):
            if choose(groups, dataset, method, pair) is None:
                many = _images_per_class(mine, dataset, pair) if method == "distill" else None
                yield _gap(mine, dataset, pair, method, many)
        taught = [choose(groups, dataset, method, pair) for method in ("train", "inversion", "distill", "teacher")]
        if not any(taught):
            yield _gap(mine, dataset, pair, "teacher", None)


def figure_2_gaps(groups: Sequence[Group]) -> Iterator[Gap]:
    """Methods that lack an M which others of the pair, or the paper, have."""
    for dataset, pair in pairs_with_few_images(groups):
        mine = [group for group in groups if group.belongs_to(dataset, pair) and not group.changes]
        known = {group.images_per_class for group in mine if group.images_per_class is not None} - {200}
        if pair == paper.FIGURE_2_PAIR and paper.configuration(dataset, pair):
            known |= set(paper.FIGURE_2_IMAGES)
        for method in _FEW:
            there = {group.images_per_class for group in mine if group.method == method}
            for many in sorted(known - there):
                yield _gap([g for g in groups if g.belongs_to(dataset, pair)], dataset, pair, method, many)


def evaluation_gaps(groups: Sequence[Group], *, measure: str = "mte") -> Iterator[Gap]:
    """Runs to evaluate, of each pair and method of which none has been; neither finetuned nor scratch students."""
    for dataset, pair in pairs_of(groups):
        for method in (*WITHOUT_DATA, "distill"):
            mine = [g for g in groups if (g.dataset, g.pair, g.method) == (dataset, pair, method)]
            if any(run.evaluation.get(measure) for group in mine for run in group.runs):
                continue
            group = choose(groups, dataset, method, pair) or next(iter(mine), None)
            for run in group.runs if group else ():
                what = f"{dataset} {arrow(pair)}, {NAMES[method]}, seed {run.seed}"
                yield Gap(what, shlex.join(["python", "-m", "zskt_dist.evaluate", _lasting(run)]))


def any_zero_shot(groups: Sequence[Group]) -> Iterator[Gap]:
    """A zero-shot run of each pair that has none, with or without its pictures."""
    for dataset, pair in pairs_of(groups) or [_pair_of(groups[0])]:
        mine = [group for group in groups if group.belongs_to(dataset, pair)]
        if not any(group.method in WITHOUT_DATA for group in mine):
            yield _gap(mine, dataset, pair, "train", None)


def fill_command(groups: Sequence[Group], dataset: str, pair: Pair, method: str, many: int | None) -> str:
    """The command that would make a missing group, as its neighbours were made.

    It takes the configuration of a neighbour and says whatever has to be other than there: networks, M, seeds, and
    what makes the neighbour special. Where the neighbour's folder is a download, the command line holds all settings.

    Args:
        groups: The neighbours, one or more.
    """
    base = min(groups, key=lambda group: _distance(group, pair, method)).first
    config = base.config
    same = [run for group in groups if group.method == method for run in group.runs]
    seen: dict[str, Any] = dict(flatten(config))
    networks = {"teacher.arch": pair[0], "student.arch": pair[1]}
    wanted: dict[str, Any] = {key: arch for key, arch in networks.items() if arch is not None}
    if method in _FEW:
        wanted["data.images_per_class"] = many
    if method in WITHOUT_DATA:
        wanted["method"] = "belief_matching" if method == "train" else method
    if method in ("teacher", "scratch"):
        wanted["supervised.network"] = "teacher" if method == "teacher" else "student"
    whose = {"teacher": (pair[0], None), "scratch": (None, pair[1])}.get(method, pair)
    if same or paper.configuration(dataset, whose):
        wanted |= _overrides(reference_recipe(dataset, method, whose, same), recipe_of(config, method))
    # M always stands there: a neighbour's own would fill another cell.
    said = {k: v for k, v in wanted.items() if k == "data.images_per_class" or v != seen.get(k)}
    seeds = sorted({run.seed for group in groups if group.method != "teacher" for run in group.runs}) or [base.seed]
    several = len(seeds) > 1 and not (method == "teacher" and isinstance(config.teacher.seed, int))
    said |= {"seeds": seeds} if several else {"seed": seeds[0]}
    start = ["python", "-m", f"zskt_dist.{TASKS[TASKS_OF[method][0]].command}"]
    if base.lent:
        return shlex.join([*start, *_all_words(config, words(said))])
    return shlex.join([*start, "--config", _relative(base.directory.config), "name=null", *words(said)])


def _overrides(reference: Recipe, recipe: Recipe) -> dict[str, Any]:
    """What makes a recipe the reference; options, of which no override takes one away, all anew where one has to go."""
    wanted = changes(reference, recipe)
    anew = {
        key.partition(".options.")[0] + ".options" for key in wanted if wanted[key] is ABSENT and ".options." in key
    }
    kept = {key: value for key, value in wanted.items() if value is not ABSENT and not is_under(key, tuple(anew))}
    return kept | {
        section: {key.removeprefix(f"{section}."): reference[key] for key in reference if is_under(key, (section,))}
        for section in sorted(anew)
    }


def _gap(groups: Sequence[Group], dataset: str, pair: Pair, method: str, many: int | None) -> Gap:
    m = "" if many is None else f", M = {many}"
    return Gap(f"{dataset} {arrow(pair)}, {NAMES[method]}{m}", fill_command(groups, dataset, pair, method, many))


def _distance(group: Group, pair: Pair, method: str) -> tuple[Any, ...]:
    """How many settings lie between a group and one of another method: the same method and pair come first."""
    order = ("train", "inversion", "distill", "finetune", "scratch", "teacher")
    return group.first.lent, group.pair != pair, bool(group.changes), group.method != method, order.index(group.method)


def _images_per_class(groups: Sequence[Group], dataset: str, pair: Pair) -> int:
    """M of a KD+AT run that is missing: the paper's, else the largest that the data is known to have."""
    if paper.configuration(dataset, pair):
        return 200
    return max((group.images_per_class or 0 for group in groups), default=0) or 10


def _pair_of(group: Group) -> tuple[str, Pair]:
    """The pair that a run without one was configured for."""
    return group.dataset, (group.first.config.teacher.arch, group.first.config.student.arch)


def _all_words(config: Config, overrides: list[str]) -> list[str]:
    """Every key that is not at its default, as words of a command line; no folder that other machines lack."""
    wanted = with_overrides(config, [*overrides, "name=null"])
    defaults = dict(flatten(Config()))
    elsewhere = ("tracking",) if is_uri(config.runs_dir) else ("tracking", "runs_dir")
    different = {key: value for key, value in flatten(wanted) if key not in defaults or defaults[key] != value}
    return words({key: value for key, value in different.items() if not is_under(key, elsewhere)})


def _lasting(run: Run) -> str:
    """Where a run lies: its own place in a store, where it was made if this is a download, else its folder."""
    if is_uri(run.directory.location):
        return run.directory.location
    if run.lent:
        return join(run.config.runs_dir, run.result["experiment"], run.result["name"])
    return _relative(run.directory.path)


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
