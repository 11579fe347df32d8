"""One command for several seeds: a run for each, and their mean and standard deviation."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from zskt_dist.config import Config
from zskt_dist.errors import Interrupted
from zskt_dist.launch.driver import execute
from zskt_dist.launch.environment import is_follower
from zskt_dist.launch.mlflow_run import adopt, complete_record, open_group
from zskt_dist.page.write import update_page
from zskt_dist.runs.directory import Differs, RunDirectory, open_run
from zskt_dist.runs.several import summarise
from zskt_dist.tasks.stages import identity, run_directory, user_digests
from zskt_dist.training.job import Job

Result = dict[str, Any]


def execute_seeds(
    command: str, config: Config, *, fresh: bool, console: Console, typed: tuple[str, ...] = ()
) -> Result:
    """Runs, continues or looks up each seed's run; the result has means, and `…_std` beside them.

    Args:
        typed: Keys of the command line.

    Returns:
        {} on torchrun's other ranks.

    Raises:
        UserError: something the user asked for cannot be done.
        Interrupted: asked to stop; the same command continues with the seed that was stopped.
    """
    singles, differs = dict(runs_of_seeds(config)), Differs(typed, ("seed",))
    if config.name is not None and not fresh:  # other names are made of the settings
        for single in singles.values():
            job = Job.plan(command, single)
            job.directory.check(command, single, job.reads, job.goal.name)
    # Every rank of torchrun looks for itself, before it takes part in anything: as no run is finished
    # without all ranks, they find the same.
    missing = [seed for seed, single in singles.items() if fresh or not _finished(run_directory(single, command))]
    if is_follower():
        for seed in missing:
            execute(command, singles[seed], fresh=fresh, console=console)
        return {}
    with open_run(run_directory(config, command).location, fresh=fresh, announce=console.print) as directory:
        goal = Job.plan(command, config).goal
        files = user_digests(goal)
        directory.begin(command, config, task=goal.name, differs=Differs(typed), files=files)
        open_group(directory, config)
        status = "FAILED"
        try:
            results = []
            for seed, single in singles.items():
                run = run_directory(single, command)
                console.print(f"seed {seed}: {run.location}", soft_wrap=True, highlight=False)
                if seed in missing:
                    group = directory.path.name
                    execute(command, single, fresh=fresh, console=console, group=group, differs=differs)
                else:
                    run.check_files(files)
                    adopt(run, directory, differs, config.tracking.uri)
                results.append(run.finished() or {})
            directory.finish(summarise(command, config, identity(command, config), directory, results))
            update_page(directory)
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            complete_record(directory, config.tracking.uri, status)
        directory.mirror.push()
    return directory.finished() or {}


def _finished(run: RunDirectory) -> Result | None:
    run.mirror.pull(checkpoints=False)
    return run.whole()


def runs_of_seeds(config: Config) -> Iterator[tuple[int, Config]]:
    """(seed, configuration) of each single run."""
    for seed in config.seeds or ():
        name = config.name and f"{config.name}-seed{seed}"
        yield seed, config.model_copy(update={"seed": seed, "seeds": None, "name": name})
