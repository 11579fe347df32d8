"""One command for several seeds: a run for each, and their mean and standard deviation."""

from collections.abc import Iterator
from statistics import fmean, pstdev
from typing import Any

from rich.console import Console

from zskt_dist.config import Config, config_hash
from zskt_dist.launch.driver import execute
from zskt_dist.launch.record import adopt, close_group, open_group
from zskt_dist.runtime.directory import RunDirectory, run_directory

Result = dict[str, Any]


def execute_seeds(command: str, config: Config, *, fresh: bool, console: Console) -> Result:
    """Runs, continues or looks up each seed's run; the result has means, and `…_std` beside them.

    Raises:
        UserError: something the user asked for cannot be done.
        Interrupted: asked to stop; the same command continues with the seed that was stopped.
    """
    directory = run_directory(config, command)
    with directory.driven():
        directory.mirror.pull(checkpoints=False)
        if fresh and (aside := directory.move_aside()):
            console.print(f"The earlier result is kept as {aside}")
        directory.begin(command, config, None)
        group = open_group(directory, command, config)
        results = []
        for seed, single in runs_of_seeds(config):
            run = run_directory(single, command)
            console.print(f"seed {seed}: {run.location}", soft_wrap=True, highlight=False)
            run.mirror.pull(checkpoints=False)
            result = None if fresh else run.finished()
            if result is None:
                result = execute(command, single, fresh=fresh, console=console, group=group)
            else:
                adopt(run, group)
            results.append(result)
        if not results[0]:
            return {}  # one of torchrun's followers
        directory.finish(summarise(command, config, directory, results))
        close_group(directory, group)
        directory.mirror.push()
    return directory.finished() or {}


def runs_of_seeds(config: Config) -> Iterator[tuple[int, Config]]:
    """(seed, configuration) of each single run."""
    for seed in config.seeds or ():
        name = config.name and f"{config.name}-seed{seed}"
        yield seed, config.model_copy(update={"seed": seed, "seeds": None, "name": name})


def summarise(command: str, config: Config, directory: RunDirectory, results: list[Result]) -> Result:
    """`result.json` of several seeds: as of one, with means, population standard deviations and the runs' names."""
    first = results[0]
    kept = ("status", "git_commit", "launcher", "engine", "world_size", "device", "dataset", "images_per_class")
    return {
        **{key: first[key] for key in kept},
        "command": command,
        "experiment": config.experiment,
        "name": directory.path.name,
        "config_hash": config_hash(config, command),
        "seeds": list(config.seeds or ()),
        "runs": [result["name"] for result in results],
        "iterations": first["iterations"],
        "seconds": round(sum(result["seconds"] for result in results), 2),
        "iterations_per_second": round(fmean(result["iterations_per_second"] for result in results), 3),
        "peak_memory_bytes": max(result["peak_memory_bytes"] for result in results),
        "teacher": _spread([result["teacher"] for result in results], ("accuracy",)),
        "student": _spread([result["student"] for result in results], ("accuracy_last", "accuracy_best", "agreement")),
        "mte": summarise_mte([result["mte"] for result in results]),
        "mlflow": None,
    }


def summarise_mte(values: list[Result | None]) -> Result | None:
    """The mean transition error over seeds; None while one of them has not been evaluated."""
    return _spread(values, ("value", "images"))


def _spread(entries: list[Result | None], names: tuple[str, ...]) -> Result | None:
    """The first entry with the named numbers replaced by their mean, and their standard deviation beside it."""
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
