"""Layers of a network whose attention maps can be compared, or of both networks of a configuration."""

import argparse
import re
from collections.abc import Sequence

from zskt_dist import arguments
from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.layers",
        description=__doc__,
        epilog="Use these names in loss.taps.teacher=[…] and loss.taps.student=[…] (docs/attention.md).",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ARCH | key=value",
        help="a network, or settings of a configuration (two networks)",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file, or the name of one that `zskt configs` lists")
    parser.add_argument(
        "--image-shape",
        metavar="C,H,W",
        type=_image_shape,
        help="default: that of timm or torchvision, else 3,32,32; for a configuration, that of its data",
    )
    parser.add_argument("--classes", metavar="N", type=int, help="default: 10; for a configuration, those of its data")
    parser.add_argument("--all", action="store_true", help="list all modules")
    options = arguments.parse(parser, argv)
    return guarded(lambda: _list(options))


def _image_shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not C,H,W, for example 3,32,32")
    return tuple(map(int, text.split(",")))


def _list(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zskt_dist.launch.layers import list_layers

    list_layers(
        options.words,
        config_file=options.config,
        image_shape=options.image_shape,
        num_classes=options.classes,
        everything=options.all,
        console=Console(),
    )


if __name__ == "__main__":
    raise SystemExit(main())
