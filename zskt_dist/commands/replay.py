"""Upload the missing parts of a run to MLflow, after an outage or to another server."""

import argparse
from collections.abc import Sequence

from zskt_dist import logs
from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zskt_dist.replay", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, runs/EXPERIMENT/NAME, or its URI")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="student.arch=…, teacher.arch=…: code of the run that you trust"
    )
    parser.add_argument(
        "--uri", metavar="URI", help="tracking URI; default: the run's own, else MLFLOW_TRACKING_URI, else mlflow.db"
    )
    options = logs.parse(parser, argv)
    return guarded(lambda: _replay(options.run_dir, options.uri, options.words))


def _replay(location: str, uri: str | None, words: list[str]) -> None:
    from zskt_dist.extras import require

    require("zskt replay", "mlflow")

    from zskt_dist.launch.mlflow_run import replay_command

    print(replay_command(location, uri, words))


if __name__ == "__main__":
    raise SystemExit(main())
