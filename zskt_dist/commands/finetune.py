"""Train a zero-shot student on with a few labelled images per class."""

from collections.abc import Sequence

from zskt_dist.commands.shared import training_command


def main(argv: Sequence[str] | None = None) -> int:
    return training_command("finetune", __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
