"""The keys that others read, with numbers that fit each other."""

import json
from pathlib import Path

import pytest

from benchmarks import iteration
from zskt_dist.speed import fast_paths


def test_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_paths, "compiler", lambda: None)  # which would take a minute
    monkeypatch.setattr(iteration, "convolution_peak", lambda threads: 1.0)
    monkeypatch.setattr(iteration, "_SIDE", 64)
    path = tmp_path / "iteration.json"
    tiny = ["--pair", "wrn-10-1", "wrn-10-1", "--batch", "2", "--student-steps", "1", "--repetitions", "1"]
    iteration.main([*tiny, "--json", str(path)])
    answer = json.loads(path.read_text())
    for mode in ("post_update", "pre_update"):
        expected = answer["reference_seconds"] / answer[f"{mode}_seconds"]
        assert answer[f"ratio_{mode}"] == pytest.approx(expected), "n = 1: the ratio of the medians"
    achieved = answer["gflop_per_iteration"] / answer["post_update_seconds"]
    assert answer["fraction_of_peak"] == pytest.approx(achieved / answer["peak_gflops"])
