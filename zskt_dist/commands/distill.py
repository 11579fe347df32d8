"""Train a student on real images with the help of the teacher (KD + attention transfer), the paper's baseline."""

from collections.abc import Sequence

from zskt_dist.commands.shared import training_command


def main(argv: Sequence[str] | None = None) -> int:
    return training_command("distill", __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
