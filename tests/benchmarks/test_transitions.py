"""The keys that others read, and that both ways draw the same curves."""

import json
from pathlib import Path

import pytest

from benchmarks import transitions


def test_contract(tmp_path: Path) -> None:
    path = tmp_path / "transitions.json"
    tiny = ["--pair", "lenet", "lenet", "--images", "2", "--steps", "2", "--sample", "2", "--repetitions", "1"]
    transitions.main([*tiny, "--threads", "1", "--json", str(path)])
    answer = json.loads(path.read_text())
    assert answer["max_difference"] < 1e-4
    assert answer["ratio"] == pytest.approx(answer["batch1_seconds"] / answer["batched_seconds"])
