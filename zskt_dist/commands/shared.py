"""Parts that the command lines share. Arguments are parsed before anything heavy is imported."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zskt_dist.arguments import parse
from zskt_dist.errors import guarded
from zskt_dist.launch.environment import is_follower, torchrun_rank

if TYPE_CHECKING:
    from rich.console import Console

    from zskt_dist.config import Config
    from zskt_dist.training.job import Job


def training_command(command: str, description: str | None, argv: Sequence[str] | None = None) -> int:
    """A command that trains: parses, plans, runs, and prints the result. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parse(_parser(command, description), arguments)
    return guarded(lambda: _train(command, options, arguments), fresh=options.fresh)


def _parser(command: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m zskt_dist.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The same command again continues an interrupted run and shows the result of a finished one.",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file, or the name of one that `zskt configs` lists")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, for example loss.beta=0")
    parser.add_argument("--fresh", action="store_true", help="start over; an earlier run is kept under another name")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and show the plan; train nothing; exit code 2 if a check fails",
    )
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration as YAML and stop")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write result.json to FILE")
    return parser


def _train(command: str, options: argparse.Namespace, arguments: list[str]) -> None:
    from zskt_dist.config import dump_yaml, load_config

    config = load_config(options.config, [*options.overrides, *_torchrun_overrides()])
    if options.print_config:
        print(dump_yaml(config), end="")
        return

    from rich.console import Console

    from zskt_dist.files import check_json, write_json
    from zskt_dist.runs.directory import find_run
    from zskt_dist.tasks.stages import pinned, user_digests
    from zskt_dist.training.job import Job

    console = Console()
    config = pinned(command, config)
    job = Job.plan(command, config)
    if options.dry_run:
        from zskt_dist.launch.preflight import print_plan

        if not is_follower():
            _check_run(job, config, options.fresh)
            print_plan(command, config, [a for a in arguments if a != "--dry-run"], console)
        return

    if options.json and not is_follower():
        check_json(options.json)
    directory = find_run(job.goal.run, "runs_dir", own=True)
    _check_run(job, config, options.fresh)
    result = None if options.fresh else directory.whole()
    if result and not is_follower():
        directory.check_files(user_digests(job.goal))
        console.print("Finished earlier; --fresh starts over")
        if directory.record_is_partial():
            from zskt_dist.launch.mlflow_run import repair_record

            repair_record(directory, config.tracking.uri)
        job.push()  # what an earlier command could not upload
    if result is None:
        if not (options.config or options.overrides or is_follower()):
            console.print(
                "No settings are given, so this is the example on digits; `zskt configs` lists others", soft_wrap=True
            )
        keys = tuple(word.partition("=")[0] for word in options.overrides)
        result = _execute(command, config, keys, options.fresh, console)
    if result and not is_follower():
        from zskt_dist.launch.summary import print_summary

        if options.json:
            write_json(options.json, result)
        print_summary(result, directory.path, console)
        if directory.location != str(directory.path):
            console.print(f"store    {directory.location}", soft_wrap=True, highlight=False)


def _check_run(job: "Job", config: "Config", fresh: bool) -> None:
    """Raises UserError where the directory holds another run; a name made of the settings always fits."""
    if not fresh and config.name is not None:
        job.directory.check(job.goal.task.command, config, job.reads, job.goal.name)


def _execute(command: str, config: "Config", keys: tuple[str, ...], fresh: bool, console: "Console") -> dict[str, Any]:
    from zskt_dist.runs.directory import Differs

    if config.seeds is None:
        from zskt_dist.launch.driver import execute

        return execute(command, config, fresh=fresh, console=console, differs=Differs(keys))

    from zskt_dist.experiments.seeds import execute_seeds

    return execute_seeds(command, config, fresh=fresh, console=console, typed=keys)


def _torchrun_overrides() -> list[str]:
    """Overrides for a process that torchrun started: its ranks are the workers."""
    rank = torchrun_rank()
    return ["launch.kind=local", f"launch.workers={rank[1]}"] if rank else []
