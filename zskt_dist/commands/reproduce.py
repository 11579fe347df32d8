"""Run a whole graph of experiments and its report; finished runs are skipped, interrupted ones continue."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zskt_dist import arguments
from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zskt_dist.reproduce", description=__doc__)
    parser.add_argument("graph", type=Path, metavar="GRAPH", help="a YAML file, or a shipped graph: two_cores/graph")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="dotted keys, on top of every step's settings"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs and how far they are; train nothing")
    options = arguments.parse(parser, argv)
    return guarded(lambda: _reproduce(options))


def _reproduce(options: argparse.Namespace) -> None:
    from zskt_dist.config.graph import load_graph
    from zskt_dist.extras import EXTRAS, require

    if not options.dry_run:
        require("zskt reproduce", *EXTRAS["report"])  # the report comes last, maybe days later
    graph, tasks = load_graph(options.graph, options.overrides)

    from rich.console import Console

    from zskt_dist.experiments.graph import print_graph, run_graph

    (print_graph if options.dry_run else run_graph)(graph, tasks, Console())


if __name__ == "__main__":
    raise SystemExit(main())
