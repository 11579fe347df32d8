"""Sweep over configuration keys with Ray Tune: trials of `train`, compared without labels."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zskt_dist import arguments
from zskt_dist.errors import guarded

if TYPE_CHECKING:
    from rich.console import Console

    from zskt_dist.sweep.space import Sweep, Trial


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.sweep",
        description=__doc__,
        epilog="The same command again continues an interrupted sweep: finished trials are left alone, others go on.",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, required=True, help="a YAML file, or a shipped sweep: sweeps/beta"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings of all trials, or sweep.samples=4, …"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what became of the trials; their runs are kept")
    parser.add_argument("--dry-run", action="store_true", help="check everything and list the trials, run nothing")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write result.json to FILE")
    options = arguments.parse(parser, argv)
    return guarded(lambda: _sweep(options))


def _sweep(options: argparse.Namespace) -> None:
    from zskt_dist.extras import EXTRAS, require
    from zskt_dist.files import check_json, write_json
    from zskt_dist.sweep.space import load_sweep

    require("zskt sweep", "ray", *EXTRAS["report"])  # its report, too, hours later
    if options.json:
        check_json(options.json)
    sweep, trials = load_sweep(options.config, options.overrides)

    from rich.console import Console

    console = Console()
    if options.dry_run:
        _print_trials(sweep, trials, console)
        return

    from zskt_dist.sweep.driver import run_sweep, sweep_directory
    from zskt_dist.sweep.summary import print_sweep

    result = run_sweep(sweep, trials, fresh=options.fresh, console=console)
    if options.json:
        write_json(options.json, result)
    print_sweep(result, sweep_directory(sweep, trials), console)


def _print_trials(sweep: "Sweep", trials: "Sequence[Trial]", console: "Console") -> None:
    from zskt_dist.launch.preflight import Preflight, refuse
    from zskt_dist.launch.summary import print_runs
    from zskt_dist.training.job import Job

    runs = [({"trial": str(trial.number), "settings": trial.label}, trial.run) for trial in trials]
    print_runs(sweep.title, runs, console)
    found = {
        str(problem): problem for trial in trials for problem in Preflight(Job.plan("train", trial.config)).problems()
    }
    refuse(list(found.values()))
    console.print("ready: configurations, files and resources are in order")


if __name__ == "__main__":
    raise SystemExit(main())
