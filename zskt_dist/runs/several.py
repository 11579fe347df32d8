"""The result of several seeds: means and deviations of those of the single runs."""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any, cast

from zskt_dist.config import Config
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.result import Command, RunResult

Result = dict[str, Any]


def summarise(
    command: str, config: Config, hash: str, directory: RunDirectory, results: list[Result]
) -> RunResult:
    """`result.json` of several seeds: that of one, with means, population standard deviations and the runs' names."""
    first = results[0]
    return {
        "status": first["status"],
        "git_commit": first["git_commit"],
        "launcher": first["launcher"],
        "engine": first["engine"],
        "world_size": first["world_size"],
        "device": first["device"],
        "dataset": first["dataset"],
        "images_per_class": first["images_per_class"],
        "command": cast(Command, command),
        "experiment": config.experiment,
        "name": directory.path.name,
        "config_hash": hash,
        "seeds": list(config.seeds or ()),
        "runs": [result["name"] for result in results],
        "iterations": first["iterations"],
        "seconds": round(sum(result["seconds"] for result in results), 2),
        "iterations_per_second": round(fmean(result["iterations_per_second"] for result in results), 3),
        "peak_memory_bytes": max(result["peak_memory_bytes"] for result in results),
        "teacher": spread([result["teacher"] for result in results], ("accuracy",)),
        "student": spread([result["student"] for result in results], ("accuracy_last", "accuracy_best", "agreement")),
        "attention": first.get("attention"),
        "method": first.get("method"),
        "test_images": first.get("test_images"),
        "seed_images": first.get("seed_images"),
        "yardstick": summarise_yardstick([result.get("yardstick") for result in results]),
        "estimates": summarise_estimates([result.get("estimates") for result in results]),
        "mte": summarise_mte([result["mte"] for result in results]),
        "mlflow": None,
    }


def summarise_mte(values: list[Result | None]) -> Any:
    """The mean transition error over seeds; None unless all have been evaluated, and in the same way."""
    ways = [{key: entry[key] for key in entry if key not in ("value", "images")} for entry in values if entry]
    return spread(values, ("value", "images")) if all(way == ways[0] for way in ways) else None


def summarise_estimates(values: list[Result | None]) -> Any:
    """Mean and standard deviation of each number that was estimated for all seeds; None where there is none.

    Each kind of images is summarised in the same way.
    """
    present = [entry for entry in values if entry]
    if not present or len(present) < len(values):
        return None
    summary: Result = {}
    for name in present[0]:
        numbers = [entry[name] for entry in present if name in entry]
        if len(numbers) < len(values):
            continue
        if isinstance(numbers[0], dict):
            summary[name] = summarise_estimates(numbers)
        else:
            summary |= {name: fmean(numbers), f"{name}_std": pstdev(numbers)}
    return summary


def summarise_yardstick(values: list[Result | None]) -> Any:
    """Means on one yardstick; None where the seeds have several, or one has none."""
    summary = spread(values, ("agreement",))
    if summary is None or len({entry["sha256"] for entry in values if entry}) > 1:
        return None
    ends = {name: fmean(entry[name] for entry in values if entry) for name in ("low", "high")}
    return summary | ends | {"sha256": (values[0] or {})["sha256"]}


def spread(entries: Sequence[Mapping[str, Any] | None], names: tuple[str, ...]) -> Any:
    """The first entry with the named numbers as means, and their deviations beside them; None where one is missing."""
    present = [entry for entry in entries if entry is not None]
    if len(present) < len(entries):
        return None
    summary = {key: value for key, value in present[0].items() if key != "sha256"}
    for name in names:
        numbers = [entry[name] for entry in present]
        known = all(number is not None for number in numbers)
        summary[name] = fmean(numbers) if known else None
        summary[f"{name}_std"] = pstdev(numbers) if known else None
    return summary


def seed_directories(directory: RunDirectory, result: Result) -> list[RunDirectory]:
    """The single runs behind a result: those of its seeds, or the run itself."""
    names = result.get("runs")
    return [directory.sibling(name) for name in names] if names else [directory]
