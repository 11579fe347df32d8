"""Pseudo-data: images of a run's generators with the teacher's logits, as Parquet shards (docs/pseudo_data.md)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zskt_dist import arguments
from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.synthesize",
        description=__doc__,
        epilog="The same command again keeps whole shards and makes missing ones.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a finished run of train, runs/EXPERIMENT/NAME, or its URI")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="teacher.checkpoint=…, device=cuda, launch.…")
    parser.add_argument("--images", metavar="N", type=int, help="number of images (10000; of an inversion all)")
    parser.add_argument("--out", metavar="FOLDER", help="folder for the shards (RUN_DIR/pseudo_data)")
    parser.add_argument("--workers", metavar="W", type=int, default=1, help="processes of this machine (1)")
    parser.add_argument("--shard-images", metavar="M", type=int, help="images in a shard (about 2000)")
    parser.add_argument(
        "--sources",
        metavar="WHICH",
        default="all",
        help="snapshots of the generator, in equal shares: all, last, or iterations as 200,400 (all)",
    )
    parser.add_argument("--fresh", action="store_true", help="make all shards anew")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result to FILE")
    options = arguments.parse(parser, argv)
    return guarded(lambda: _synthesize(options), fresh=options.fresh)


def _synthesize(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zskt_dist.errors import ConfigError
    from zskt_dist.files import check_json, write_json
    from zskt_dist.launch.environment import is_follower
    from zskt_dist.launch.synthesize import Wanted, synthesize_run

    for name in ("images", "workers", "shard_images"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')}", value, "expected greater than 0")
    if options.json and not is_follower():
        check_json(options.json)
    wanted = Wanted(options.images, options.out, options.shard_images, options.sources)
    overrides = [*options.overrides, *([f"launch.workers={options.workers}"] if options.workers > 1 else [])]
    result = synthesize_run(options.run_dir, overrides, wanted, fresh=options.fresh, console=Console())
    if options.json and result:
        write_json(options.json, result)


if __name__ == "__main__":
    raise SystemExit(main())
