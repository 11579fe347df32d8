"""Estimates beside agreement on test images: ranks and distances by hand, from hand-made histories."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import yardstick
from tests.support.finished import finished_run

# Ranks of agreement 1 2 3 4; of the yardstick 1 2 4 3: rho = 1 - 6 * 2 / (4 * 15) = 0.8; of noise 4 3 2 1: -1.
AGREEMENT, YARDSTICK, NOISE = (0.2, 0.4, 0.6, 0.8), (0.1, 0.3, 0.7, 0.5), (0.9, 0.8, 0.7, 0.6)


def _history(run: Path, first: int, last: int, **more: float) -> None:
    rows = [
        {"iteration": i, "agreement": AGREEMENT[i], "yardstick_agreement": YARDSTICK[i], "noise_agreement": NOISE[i]}
        for i in range(first, last)
    ]
    pq.write_table(
        pa.Table.from_pylist([row | more for row in rows] + [{"iteration": 9, "kl": 0.1}]), run / "history.parquet"
    )


def test_students_of_a_teacher_are_ranked_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _history(finished_run(tmp_path, "train", 0, teacher="one"), 0, 2, held_out_kl=0.5)
    _history(finished_run(tmp_path, "inversion", 0, teacher="one"), 2, 4)
    _history(finished_run(tmp_path, "inversion", 1, teacher="another"), 0, 3)
    answer, figure = tmp_path / "answer.json", tmp_path / "figure.png"
    yardstick.main([str(tmp_path), "--json", str(answer), "--figure", str(figure)])
    found = json.loads(answer.read_text())
    assert found["students"] == 7
    assert found["ranks"] == [
        {
            "teacher": "cifar10, wrn-40-2 (one)",
            "estimate": name,
            "students": 4,
            "spearman": pytest.approx(rho),
            "spearman_of_yardstick": pytest.approx(0.8),
            "distance": pytest.approx(distance),
        }
        for name, rho, distance in (("yardstick_agreement", 0.8, 0.15), ("noise_agreement", -1, 0.35))
    ], "three students, or two with a KL, have no ranks"
    assert "normal noise" in capsys.readouterr().out
    assert figure.stat().st_size > 1000


def test_without_a_measurement_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(tmp_path, "train")
    with pytest.raises(SystemExit):
        yardstick.main([str(tmp_path)])
    assert "evaluation.every and a yardstick" in capsys.readouterr().err
