"""Finished runs of digits with a student that nobody has trained."""

import json
from pathlib import Path
from typing import Any

from tests.support.finished import finished_run
from zskt_dist.export.exported_network import ExportedNetwork, open_network
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.weights import save_weights
from zskt_dist.runs.directory import RunDirectory


def untrained_run(
    folder: Path,
    *overrides: str,
    kind: str = "train",
    arch: str = "lenet",
    shape: tuple[int, int, int] = (1, 8, 8),
    **result: Any,
) -> Path:
    """The directory of a run that has a `lenet` as teacher, whose weights are gone.

    Args:
        result: What differs in `result.json`.
    """
    path = finished_run(folder, kind, 0, 0.8, *overrides, pair=("lenet", arch), dataset="digits", name="run")
    about = {"arch": arch, "options": {}, "image_shape": shape, "num_classes": 10, "mean": None, "std": None}
    save_weights(path / "student.safetensors", build_network(arch, ImageShape(*shape), 10), about)
    told = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(told | result))
    return path


def untrained_network(folder: Path, *overrides: str, **how: Any) -> ExportedNetwork:
    """The student of `untrained_run`."""
    directory = RunDirectory(untrained_run(folder, *overrides, **how))
    result = directory.finished()
    assert result
    return open_network(directory, result)
