"""Train a teacher on real labelled images, with the recipe of the paper, and cache it for `train`."""

from collections.abc import Sequence

from zskt_dist.cli import training_command


def main(argv: Sequence[str] | None = None) -> int:
    assert __doc__
    return training_command("pretrain", __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
