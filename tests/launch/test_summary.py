"""The short table at the end of a command."""

import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from zskt_dist.launch.summary import print_summary, print_yardstick

NETWORK = {"arch": "lenet", "params": 10, "accuracy": 0.9, "accuracy_std": 0.0}
STUDENT = NETWORK | {"accuracy_last": 0.8, "accuracy_last_std": 0.0, "agreement": 0.7, "agreement_std": 0.0}
NOISE = {"images": 100, "agreement": 0.7, "agreement_std": 0.0, "agreement_low": 0.61, "agreement_high": 0.78}
RESULT: dict[str, Any] = {
    **{"experiment": "digits", "name": "run", "iterations": 10, "seconds": 1, "iterations_per_second": 10},
    **{"world_size": 1, "launcher": "inline", "device": "cpu", "mlflow": None, "teacher": NETWORK, "student": STUDENT},
    "estimates": {"sources": {"noise": NOISE | {"chance_agreement": 0.1, "kl_50": 0.2, "teacher_classes": 9}}},
}


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_one_seed_has_no_deviation(seeds: list[int]) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_summary(RESULT | {"seeds": seeds, "runs": [f"run-seed{seed}" for seed in seeds]}, Path("run"), console)
    text = console.export_text()
    assert ("±" in text) == ("mean" in text) == ("80.00 ± 0.00 %" in text) == (len(seeds) > 1)
    assert ("70.0 (61.0 to 78.0)" in text) == (len(seeds) == 1)


def test_commands_are_quoted_for_a_shell() -> None:
    said = Console(width=500, file=io.StringIO(), force_terminal=False)
    found = {"agreement": 0.9, "low": 0.8, "high": 0.95, "images": 512}
    print_yardstick(found, "runs/my students/it's one", said)
    assert isinstance(said.file, io.StringIO)
    command = said.file.getvalue().partition("label 100 images: ")[2]
    assert shlex.split(command)[:3] == ["zskt", "evaluate", "runs/my students/it's one"]
    print_yardstick(found, "run", said, measured=True)
    assert said.file.getvalue().count("label 100 images") == 1, "who has measured needs no advice"


@pytest.mark.parametrize("dataset", ["digits", "none"])
def test_without_images_there_are_no_columns_for_them(dataset: str) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    unmeasured = {"accuracy": None, "accuracy_last": None, "agreement": None} if dataset == "none" else {}
    networks = {role: RESULT[role] | unmeasured for role in ("teacher", "student")}
    print_summary(RESULT | networks | {"dataset": dataset}, Path("run"), console)
    table = console.export_text().partition("iterations")[0]
    assert ("test accuracy" in table) == ("80.00 %" in table) == (dataset == "digits")
    assert "10 (100%)" in table
