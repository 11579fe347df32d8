"""The short table at the end of a command."""

import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from zskt_dist.launch.summary import print_summary

NETWORK = {"arch": "lenet", "params": 10, "accuracy": 0.9, "accuracy_std": 0.0}
STUDENT = NETWORK | {"accuracy_last": 0.8, "accuracy_last_std": 0.0, "agreement": 0.7, "agreement_std": 0.0}
NOISE = {"images": 100, "agreement": 0.7, "agreement_std": 0.0, "agreement_low": 0.61, "agreement_high": 0.78}
RESULT: dict[str, Any] = {
    **{"experiment": "digits", "name": "run", "iterations": 10, "seconds": 1, "iterations_per_second": 10},
    **{
        "world_size": 1,
        "launcher": "inline",
        "device": "cpu",
        "dataset": "digits",
        "mlflow": None,
        "teacher": NETWORK,
        "student": STUDENT,
    },
    "estimates": {"sources": {"noise": NOISE | {"chance_agreement": 0.1, "kl_50": 0.2, "teacher_classes": 9}}},
}


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_one_seed_has_no_deviation(seeds: list[int]) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_summary(RESULT | {"seeds": seeds, "runs": [f"run-seed{seed}" for seed in seeds]}, Path("run"), console)
    text = console.export_text()
    assert ("±" in text) == ("mean" in text) == ("80.00 ± 0.00 %" in text) == (len(seeds) > 1)
    assert ("70.0 (61.0 to 78.0)" in text) == (len(seeds) == 1)


def test_the_end_concludes_and_says_what_to_do_next() -> None:
    yardstick = {"agreement": 0.9, "low": 0.88, "high": 0.92, "images": 512}
    console = Console(width=60, record=True, file=io.StringIO())
    print_summary(RESULT | {"yardstick": yardstick}, Path("my runs/run"), console)
    lines = console.export_text().splitlines()
    assert any(line.startswith("It predicts the same class as the teacher on 90.0 % (95 %") for line in lines)
    commands = [line.removeprefix("next     ").partition("   # ")[0] for line in lines if line.startswith("next ")]
    assert [shlex.split(command) for command in commands] == [
        ["zskt", "export", "my runs/run"],
        ["zskt", "evaluate", "my runs/run"],
    ]
    assert not any("estimated on" in line for line in lines), "the yardstick is the number to read"


@pytest.mark.parametrize("dataset", ["digits", "none"])
def test_without_images_there_are_no_columns_for_them(dataset: str) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    unmeasured = {"accuracy": None, "accuracy_last": None, "agreement": None} if dataset == "none" else {}
    networks = {role: RESULT[role] | unmeasured for role in ("teacher", "student")}
    print_summary(RESULT | networks | {"dataset": dataset}, Path("run"), console)
    table = console.export_text().partition("iterations")[0]
    assert ("test accuracy" in table) == ("80.00 %" in table) == (dataset == "digits")
    assert "10 (100%)" in table
