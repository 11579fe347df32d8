"""The toy experiment of the paper (Figure 1): zero-shot transfer in the plane, as PNG and GIF."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zskt_dist import logs, ray_job
from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.toy",
        description=__doc__,
        epilog="The same command again continues an interrupted run and shows the result of a finished one.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=_count, default=0, metavar="N", help="seed of data, networks and points (0)")
    which.add_argument("--seeds", type=_count, nargs="+", metavar="N", help="one run for each seed, and mean ± std")
    parser.add_argument("--rounds", type=_count, metavar="N", help="rounds of point steps and student steps (300)")
    parser.add_argument("--authors", action="store_true", help="the authors' sizes and rates: minutes, not seconds")
    parser.add_argument("--out", metavar="FOLDER", help="default: runs/toy/seed-N; for several seeds runs/toy")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write result.json to FILE")
    options = logs.parse(parser, argv)
    if options.rounds == 0:
        parser.error("--rounds must be greater than 0")
    if options.seeds and len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds needs different numbers")
    return guarded(lambda: _toy(options), fresh=options.fresh)


def _toy(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zskt_dist.algorithms.toy import AUTHORS, ToySettings
    from zskt_dist.extras import require

    require("zskt toy", "matplotlib")

    from zskt_dist.experiments.toy import run_toy, run_toy_seeds
    from zskt_dist.files import check_json, write_json
    from zskt_dist.runs.locations import local_folder

    settings = AUTHORS if options.authors else ToySettings()
    if options.rounds is not None:
        settings = replace(settings, rounds=options.rounds)
    home, console = Path(ray_job.lasting("runs/toy", "--out")), Console()
    if options.json:
        check_json(options.json)
    out = local_folder(options.out) if options.out else None
    if options.seeds:
        folder = out or home
        result = run_toy_seeds(settings, options.seeds, folder, console, fresh=options.fresh)
        folders = [folder / run for run in result["runs"]]
    else:
        folders = [out or home / f"seed-{options.seed}"]
        result = run_toy(settings, options.seed, folders[0], console, fresh=options.fresh)
    if options.json:
        write_json(options.json, result)
    agreement, start = (_mean(result["student"], name) for name in ("agreement", "agreement_at_start"))
    print(f"agreement of the decision maps {agreement} (at the start {start}) after {settings.rounds:,} rounds")
    print("figures " + ", ".join(f"{folder}/figure1.png, {folder}/figure1.gif" for folder in folders))


def _mean(entry: Mapping[str, Any], name: str) -> str:
    deviation = f" ± {entry[f'{name}_std']:.3f}" if f"{name}_std" in entry else ""
    return f"{entry[name]:.3f}{deviation}"


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
