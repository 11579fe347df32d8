"""Work until an accuracy: from curves by hand, and a toy run of both methods."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.time_to_accuracy import Curve, Pair, compare, draw, row, run
from tests.support.configs import TINY
from zskt_dist.commands import shared
from zskt_dist.models import ImageShape


def test_a_method_has_arrived_where_it_is_first_no_worse_than_algorithm_1_is_last() -> None:
    theirs = Curve([10.0, 20.0, 30.0, 40.0], [0.2, 0.7, 0.5, 0.6], 80.0)
    ours = Curve([1.0, 2.0, 4.0], [0.5, 0.6, 0.9], 12.0)
    answer = compare({"belief_matching": theirs, "inversion": ours})
    assert answer["target_accuracy"] == 0.6
    assert answer["belief_matching"]["gflop"] == 20.0, "it was there before its end"
    assert answer["inversion"]["gflop"] == 2.0
    assert answer["belief_matching"]["cpu_seconds"] == 40.0
    assert answer["inversion"]["cpu_seconds"] == 6.0
    assert answer["ratio_gflop"] == 10.0


def test_what_never_arrives_has_no_ratio() -> None:
    answer = compare({"belief_matching": Curve([1.0], [0.9], 1.0), "inversion": Curve([1.0], [0.8], 1.0)})
    assert answer["inversion"]["gflop"] is None
    assert answer["ratio_gflop"] is None
    assert row(answer) == ["90.00%", "1", "not reached", "1", "not reached", "-"]


def test_toy_runs_of_both_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("inversion.rounds=2", "inversion.warm_up=1", "inversion.steps=2", "inversion.images=4", *TINY)
    own = dict.fromkeys(("belief_matching", "inversion"), ("iterations=4", "evaluation.every=2"))
    pair = Pair("digits", ImageShape(1, 8, 8), small, own)

    def execute(words: Sequence[str]) -> None:
        assert words[1:3] == ["--config", "digits"]
        assert shared.training_command(words[0], "", list(words[1:])) == 0

    curves = {method: run(pair, method, tmp_path / "runs", (), execute) for method in own}
    for curve in curves.values():
        assert len(curve.gflop) == len(curve.accuracy) == 2
        assert 0 < curve.gflop[0] < curve.gflop[1]
    assert curves["belief_matching"].gflop[1] == pytest.approx(2 * curves["belief_matching"].gflop[0])
    draw({"toy": compare(curves)}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
