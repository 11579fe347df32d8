"""The toy experiment of the paper (Figure 1): zero-shot transfer in the plane, as PNG and GIF."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zskt_dist.toy", description=__doc__)
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="of data, networks and points (0)")
    parser.add_argument("--rounds", type=_count, metavar="N", help="of point steps and student steps (300)")
    parser.add_argument("--authors", action="store_true", help="the authors' sizes and rates: minutes, not seconds")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: runs/toy/seed-N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write result.json to FILE")
    options = parser.parse_args(argv)
    if options.rounds == 0:
        parser.error("--rounds must be greater than 0")
    return guarded(lambda: _toy(options))


def _toy(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zskt_dist.algorithms.toy import AUTHORS, ToySettings
    from zskt_dist.files import write_json
    from zskt_dist.launch.toy import run_toy

    folder = options.out or Path("runs", "toy", f"seed-{options.seed}")
    settings = AUTHORS if options.authors else ToySettings()
    if options.rounds is not None:
        settings = replace(settings, rounds=options.rounds)
    result = run_toy(settings, options.seed, folder, Console())
    if options.json:
        write_json(options.json, result)
    agreement, start = result["student"]["agreement"], result["student"]["agreement_at_start"]
    print(f"agreement of the decision maps {agreement:.3f} (at the start {start:.3f}) after {settings.rounds:,} rounds")
    print(f"figures {folder / 'figure1.png'}, {folder / 'figure1.gif'}")


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
