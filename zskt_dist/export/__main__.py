"""Export the network of a finished run as files to deploy, each checked against PyTorch, with a model card."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from zskt_dist import arguments, logs
from zskt_dist.errors import guarded
from zskt_dist.export import DEFAULT_FORMATS, FORMATS


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="formats:\n" + "\n".join(f"  {name:12} {what}" for name, what in FORMATS.items()),
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, runs/EXPERIMENT/NAME, or its URI")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="student.arch=…, teacher.arch=…: code of the run that you trust"
    )
    parser.add_argument(
        "--to", nargs="+", choices=FORMATS, default=DEFAULT_FORMATS, help=f"default: {' '.join(DEFAULT_FORMATS)}"
    )
    parser.add_argument("--out", metavar="FOLDER", help="default: RUN_DIR/export")
    parser.add_argument("--role", choices=("student", "teacher"), help="default: the network that the run has trained")
    parser.add_argument(
        "--tolerance", metavar="T", type=float, default=1e-4, help="largest difference of logits; default: 1e-4"
    )
    parser.add_argument(
        "--with-normalisation", action="store_true", help="programs take pixels in [0, 1], not normalised images"
    )
    parser.add_argument("--model-name", metavar="NAME", help="of the registered model; default: EXPERIMENT-student")
    parser.add_argument("--uri", metavar="URI", help="MLflow store; default: as of replay")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write export.json to FILE")
    options = arguments.parse(parser, argv)
    return guarded(lambda: _export(options))


def _export(options: argparse.Namespace) -> None:
    import torch
    from rich.console import Console

    from zskt_dist.export.export_run import export_run
    from zskt_dist.files import check_json, write_json

    logs.adopt("torch")
    if "OMP_NUM_THREADS" not in os.environ:  # of one thread latencies compare, and other processes disturb them least
        torch.set_num_threads(1)
    if options.json:
        check_json(options.json)
    record = export_run(
        options.run_dir,
        options.to,
        out=options.out,
        role=options.role,
        tolerance=options.tolerance,
        normalises=options.with_normalisation,
        model_name=options.model_name,
        uri=options.uri,
        console=Console(),
        words=options.words,
    )
    if options.json:
        write_json(options.json, record)


if __name__ == "__main__":
    raise SystemExit(main())
