"""Zero-shot knowledge transfer: train a small student from a teacher alone, without its data."""

from collections.abc import Sequence

from zskt_dist.commands.shared import training_command


def main(argv: Sequence[str] | None = None) -> int:
    return training_command("train", __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
