"""Train a teacher, or with supervised.network=student a student, from scratch on real labelled images."""

from collections.abc import Sequence

from zskt_dist.commands.shared import training_command


def main(argv: Sequence[str] | None = None) -> int:
    return training_command("pretrain", __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
