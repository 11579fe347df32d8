"""Finished runs made by hand: a directory with a configuration, a result and, where asked for, an evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zskt_dist.config import dump_yaml, load_config

PAIR = ("wrn-40-2", "wrn-16-1")


def finished_run(
    folder: Path,
    kind: str,
    seed: int = 0,
    accuracy: float = 0.8,
    *overrides: str,
    many: int | None = None,
    mte: float | None = None,
    steps: int = 100,
    images: int = 50,
    iterations: int = 80_000,
    pair: tuple[str, str] = PAIR,
    dataset: str = "cifar10",
    name: str | None = None,
    teacher: str | None = None,
    noise: Sequence[float] = (0.5, 0.5),
) -> Path:
    """The directory of a `train`, `inversion`, `distill`, `finetune`, `scratch` or `teacher` run.

    Args:
        overrides: Of its configuration; `inversion.seed_images=…` gives it 1,200 images.
        many: M.
        mte: Evaluated, with this error and `steps` values in each curve.
        teacher: Name of the directory under `teachers/` that it learnt from.
    """
    seeded = any(override.startswith("inversion.seed_images=") for override in overrides)
    special = "-".join(overrides).replace("/", "_")
    path = folder / dataset / (name or f"{kind}-{many}-{seed}-{pair[0]}-{pair[1]}-{special}-{iterations}")
    path.mkdir(parents=True)
    role = "teacher" if kind == "teacher" else "student"
    settings = [f"seed={seed}", f"data.images_per_class={many or 'null'}", f"iterations={iterations}"]
    settings += [f"teacher.arch={pair[0]}", f"student.arch={pair[1]}", f"data.name={dataset}", f"experiment={dataset}"]
    settings += [f"supervised.network={role if kind in ('scratch', 'teacher') else 'teacher'}"]
    settings += ["method=inversion"] if kind == "inversion" else []
    (path / "config.yaml").write_text(dump_yaml(load_config(None, [*settings, *overrides])))
    command = {"teacher": "pretrain", "scratch": "pretrain", "inversion": "train"}.get(kind, kind)
    weights = teacher and str(folder / "teachers" / teacher / "teacher.safetensors")
    (path / "command.json").write_text(json.dumps({"command": command, "teacher": weights}))
    student = {"arch": pair[1], "params": 1, "accuracy_last": accuracy, "agreement": accuracy, "sha256": "0"}
    result: dict[str, Any] = {
        "status": "finished",
        "command": command,
        "experiment": dataset,
        "name": path.name,
        "config_hash": f"{kind}{seed}",
        "seed": seed,
        "dataset": dataset,
        "num_classes": 10,
        "images_per_class": many,
        "iterations": iterations,
        "seconds": 10,
        "teacher": None
        if kind == "scratch"
        else {"arch": pair[0], "params": 2, "accuracy": accuracy if kind == "teacher" else 0.95},
        "student": None if kind == "teacher" else student,
        "seed_images": {"images": 1200, "sha256": "ab12"} if seeded else None,
        "mte": None,  # the report reads `evaluation.json`, which has the curves, too
    }
    (path / "result.json").write_text(json.dumps(result))
    if mte is not None:
        _evaluate(path, mte, steps, images, noise)
    return path


def _evaluate(path: Path, mte: float, steps: int, images: int, noise: Sequence[float]) -> None:
    curve, error = [j / steps for j in range(steps)], [0.1 + j / steps for j in range(steps)]
    how = {"value": mte, "steps": steps, "step_size": 1.0, "images": images, "stepped": "student", "skip": "agreed"}
    answer = {
        "mte": how,
        "mean_curves": {"p_a": curve, "p_b": curve, "p_a_standard_error": error, "p_b_standard_error": error},
        "calibration": {"student": {"ece": 0.25}},
        "noise": {"images": 10, "student": list(noise), "teacher": [1.0, 0.0]},
        "confusion": {"student": [[1, 0], [0, 1]]},
    }
    (path / "evaluation").mkdir()
    (path / "evaluation/evaluation.json").write_text(json.dumps(answer))
