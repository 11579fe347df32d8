"""Measure finished runs: accuracy, agreement, calibration, predictions on noise, transition curves and MTE."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zskt_dist import arguments
from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.evaluate",
        description=__doc__,
        epilog="A run that was measured with the same settings is not measured again; --fresh measures anew.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, runs/EXPERIMENT/NAME, or its URI")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="transitions.images=100, data.root=…, launch.workers=2, …"
    )
    parser.add_argument("--fresh", action="store_true", help="measure anew")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result, with the evaluation, to FILE")
    options = arguments.parse(parser, argv)
    return guarded(lambda: _evaluate(options), fresh=options.fresh)


def _evaluate(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zskt_dist.files import check_json, write_json
    from zskt_dist.launch.environment import is_follower
    from zskt_dist.launch.evaluate import evaluate_run

    if options.json and not is_follower():
        check_json(options.json)
    result = evaluate_run(options.run_dir, options.overrides, fresh=options.fresh, console=Console())
    if options.json and result:
        write_json(options.json, result)


if __name__ == "__main__":
    raise SystemExit(main())
