"""Write the first configuration: examine a teacher, ask what nobody can know, choose a student, check it all."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from zskt_dist import logs
from zskt_dist.errors import guarded

_EPILOG = """\
Without a terminal, or with --yes, nothing is asked, and what is missing is one line.

zskt init timm:resnet18 weights.pth
zskt init my_networks:Teacher teacher.pt --image-shape 1,28,28 --mean 0.5 --std 0.5
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = logs.parse(_parser(), argv)
    failed: list[int] = []
    left = f"{options.output} is not written"
    return guarded(lambda: failed.append(_init(options)), interrupted=left) or sum(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.init",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "net", metavar="NET", help="the teacher: resnet18, timm:NAME, torchvision:NAME, package.module:callable"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CHECKPOINT | key=value",
        help="its weights, unless the callable loads them itself; dotted keys, for example teacher.output=1",
    )
    parser.add_argument("--image-shape", metavar="C,H,W", help="images of the teacher, for example 3,32,32")
    parser.add_argument("--classes", metavar="N", help="number of classes that the teacher tells apart")
    parser.add_argument(
        "--mean", metavar="M,M,M", help="mean by which its images were normalised, of pixels in [0, 1], per channel"
    )
    parser.add_argument("--std", metavar="S,S,S", help="standard deviation by which they were normalised, per channel")
    parser.add_argument("--student", metavar="NET", help="the student; default: one that fits the teacher")
    parser.add_argument(
        "--test-images", metavar="FOLDER", help="labelled images to measure the student on; default: none"
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, default=Path("zskt.yaml"), help="the file to write (zskt.yaml)"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.add_argument(
        "--yes", action="store_true", help="ask nothing: take what is found, usual values, and the recommended student"
    )
    return parser


def _init(options: argparse.Namespace) -> int:
    print(f"examining {options.net}, which takes some seconds")

    from zskt_dist.init.session import Wanted, write_configuration

    wanted = Wanted(
        net=options.net,
        words=tuple(options.words),
        image_shape=options.image_shape,
        classes=options.classes,
        mean=options.mean,
        std=options.std,
        student=options.student,
        test_images=options.test_images,
        output=options.output,
        force=options.force,
        yes=options.yes,
    )
    asking = not options.yes and sys.stdin is not None and sys.stdin.isatty()
    write_configuration(wanted, asking=asking)

    from zskt_dist.commands import train

    code = train.main(["--config", str(options.output), "--dry-run"])
    if code:
        print(
            f"{options.output} is written all the same; change it, and look again: {_command(options.output)} --dry-run"
        )
    else:
        print(f"next: {_command(options.output)}")
    return code


def _command(output: Path) -> str:
    from shlex import quote

    return f"zskt train --config {quote(str(output))}"


if __name__ == "__main__":
    raise SystemExit(main())
