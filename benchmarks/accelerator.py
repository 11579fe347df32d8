"""Everything that needs a CUDA device, in calls of some minutes that go on from each other (docs/accelerator.md).

Needs torch, pydantic, PyYAML, safetensors, pyarrow and Pillow; neither Ray nor MLflow. Without a CUDA device it
runs on the CPU, where only `--toy` ends soon.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.on_device import checks, parcel, speed, training
from benchmarks.on_device.session import OutOfTime, Session
from benchmarks.subject import configured
from zskt_dist.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError
from zskt_dist.speed import fastest_convolutions

STAGES: dict[str, Callable[[Session], None]] = {
    "check": checks.run,
    "iteration": speed.run_iteration,
    "transitions": speed.run_transitions,
    "memory": speed.run_memory,
    "teachers": training.run_teachers,
    "pairs": training.run_pairs,
}
RESERVE_SECONDS = 40.0
"""Of `--minutes`, to evaluate nothing more, save, and write the files."""


def main(argv: Sequence[str] | None = None) -> int:
    """0: everything asked for is done; 1: something failed; 2: asked wrongly; 143: out of time, or data are missing."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def _run(options: argparse.Namespace) -> int:
    configured(*options.set)  # a setting that cannot be is said now, not after the stages before
    session = _session(options)
    if options.resume is not None:
        session.recall(options.resume)
        parcel.unpack(options.resume, session.work)
    fastest_convolutions(session.device)  # as a run's worker does
    session.out.mkdir(parents=True, exist_ok=True)
    if session.toy:
        training.toy_data(session.data)
    try:
        for stage in options.stages:
            STAGES[stage](session)
    except OutOfTime:
        print("out of time: the same command with --resume goes on", flush=True)
        code = EXIT_INTERRUPTED
    else:
        code = _verdict(session, options.stages)
    finally:
        left_out = parcel.pack(session.work, session.out)
        session.save()
    if left_out:
        print("no room for: " + ", ".join(left_out), file=sys.stderr)
    return code


def _verdict(session: Session, stages: Sequence[str]) -> int:
    found = {entry["status"] for stage in stages for entry in session.stages.get(stage, {}).values()}
    return 1 if "failed" in found else EXIT_INTERRUPTED if found & {"waiting", "interrupted"} else 0


def _session(options: argparse.Namespace) -> Session:
    reserve = 0.0 if options.toy else RESERVE_SECONDS
    work = options.work.absolute()
    return Session(
        out=options.out,
        work=work,
        data=(work / "toy-data" if options.toy else options.data).absolute(),
        teachers=(options.teachers or work / "teachers").absolute(),
        settings=tuple(options.set),
        ends=time.monotonic() + 60 * options.minutes - reserve,
        toy=options.toy,
        recipe=options.recipe,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is handed back")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10's Parquet shards")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="what an earlier call has left in --out")
    parser.add_argument("--work", type=Path, default=Path("runs/accelerator"), help="run directories while it works")
    parser.add_argument("--teachers", type=Path, help="folder of ARCH.safetensors; default: those made by `teachers`")
    parser.add_argument("--minutes", type=float, default=9.0, help="ends before they are over")
    parser.add_argument("--recipe", choices=training.RECIPES, default="paper", help="of the teachers")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every run; may be repeated")
    parser.add_argument("--toy", action="store_true", help="all of it in a minute, on made-up data: a test")
    return parser


if __name__ == "__main__":
    sys.exit(main())
