"""`zskt VERB …` is `python -m zskt_dist.VERB …`: a file of `commands/`, or the `__main__` of the room of that name."""

import importlib
import sys

from zskt_dist.version import __version__

VERBS = {
    "init": "a first configuration: a teacher is examined, a student chosen, the rest asked",
    "train": "a student from a teacher, without data",
    "pretrain": "a teacher, or a student, from scratch on real images",
    "distill": "a student from a teacher and real images (KD + AT)",
    "finetune": "a zero-shot student with a few real images per class",
    "evaluate": "accuracy, agreement, calibration, transition curves and MTE of a run",
    "sweep": "many students, over settings and seeds, compared without labels",
    "layers": "layers of a network whose attention maps can be compared",
    "export": "files to deploy, checked, with a model card: .pt2, ONNX, int8, MLflow",
    "synthesize": "pseudo-images of a run with the teacher's logits, as Parquet shards",
    "toy": "the paper's toy experiment, as PNG and GIF",
    "report": "tables and figures from finished runs",
    "configs": "the configurations that come with the package: list them, copy one",
    "reproduce": "a whole graph of experiments and its report",
    "replay": "upload a run to MLflow",
    "doctor": "whether this machine can train, and what to do about what is missing",
}

ROOMS = ("doctor", "export", "init", "report", "sweep")
"""Verbs whose room bears their name."""


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: zskt VERB …    zskt --version\n")
        print("\n".join(f"  {verb:11} {what}" for verb, what in VERBS.items()))
        print("\nzskt VERB --help shows the options of a verb.")
        return 0
    verb = sys.argv[1]
    if verb == "--version":
        print(f"zskt-dist {__version__}")
        return 0
    if verb not in VERBS:
        from zskt_dist.errors import did_you_mean

        hint = did_you_mean(verb, VERBS) or f"; there are: {', '.join(VERBS)}"
        print(f"error: no verb {verb!r}{hint}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(module_of(verb)).main(sys.argv[2:])
    return code


def module_of(verb: str) -> str:
    """Name of the module whose `main` is the verb."""
    return f"zskt_dist.{verb}.__main__" if verb in ROOMS else f"zskt_dist.commands.{verb}"


if __name__ == "__main__":
    raise SystemExit(main())
