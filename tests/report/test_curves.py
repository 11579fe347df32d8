"""Transition errors and curves of several runs: what can be averaged, and how sure the mean is."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.finished import PAIR, finished_run
from zskt_dist.report import __main__ as command
from zskt_dist.report import curves, noise, tables
from zskt_dist.report.curves import MeanCurve
from zskt_dist.report.runs import find_runs, group_runs


def test_errors_measured_otherwise_are_rows_of_their_own(tmp_path: Path) -> None:
    for seed, (steps, images) in enumerate(((100, 50), (100, 40), (20, 50))):
        finished_run(tmp_path / "runs", "train", seed, mte=0.1 + seed / 10, steps=steps, images=images)
    groups = group_runs(find_runs([tmp_path / "runs"]))
    rows = tables.table_2(groups).to_dict("records")
    assert [(row["MTE"], row["n"], row["K"], row["N"], row["paper"]) for row in rows] == [
        ("0.150 ± 0.050", 2, 100, "40 to 50", "0.22"),
        ("0.300", 1, 20, "50", ""),
    ]
    (row,) = tables.summary(groups).to_dict("records")
    assert row["MTE"] == "0.150 ± 0.050 (K = 100, ξ = 1, student, agreed); 0.300 (K = 20, ξ = 1, student, agreed)"
    assert [len(panel.p_a.mean) for panel in curves.panels_of(groups, "cifar10", PAIR)] == [100, 20]
    assert command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0


def test_the_evaluation_alone_says_what_was_measured(tmp_path: Path) -> None:
    path = finished_run(tmp_path, "train", mte=0.25)
    result = json.loads((path / "result.json").read_text())
    stale = {"value": 0.9, "steps": 7, "step_size": 1.0, "images": 3, "stepped": "teacher", "skip": "agreed"}
    (path / "result.json").write_text(json.dumps(result | {"mte": stale}))
    (row,) = tables.table_2(group_runs(find_runs([tmp_path]))).to_dict("records")
    assert (row["MTE"], row["K"], row["stepped"]) == ("0.250", 100, "student")


def test_figure_4_has_a_panel_for_every_group(tmp_path: Path) -> None:
    for many in (10, 50, 200, None):
        finished_run(tmp_path, "distill", many=many, mte=0.5)
    finished_run(tmp_path, "train", 0, 0.8, mte=0.2)
    finished_run(tmp_path, "train", 0, 0.8, "loss.beta=0", mte=0.3)
    finished_run(tmp_path, "train", 0, 0.8, mte=0.2, pair=("wrn-40-2", "wrn-16-2"))
    panels = curves.panels_of(group_runs(find_runs([tmp_path])), "cifar10", PAIR)
    assert [tables.setting(panel.group) for panel in panels] == [
        *("zero-shot", "zero-shot [loss.beta=0]"),
        *("KD+AT, M = 10", "KD+AT, M = 50", "KD+AT, M = 200", "KD+AT"),
    ]


def test_seeds_do_not_average_their_common_images_out() -> None:
    one = MeanCurve(np.array([0.5]), np.array([0.1]))
    assert curves.mean_over_seeds([one, one, one]).error == pytest.approx(0.1)
    other = MeanCurve(np.array([0.7]), np.array([0.1]))
    expected = (0.1**2 + 0.02 / 2) ** 0.5  # variance of 0.5 and 0.7: 0.02, ddof = 1
    assert curves.mean_over_seeds([one, other]).error == pytest.approx(expected)


def test_means_and_errors_are_those_of_the_evaluation(tmp_path: Path) -> None:
    for images, folder in ((3, tmp_path / "some"), (1, tmp_path / "one")):
        finished_run(folder, "train", mte=0.1, steps=2, images=images)
    (some,), (one,) = (
        curves.panels_of(group_runs(find_runs([tmp_path / name])), "cifar10", PAIR) for name in ("some", "one")
    )
    assert some.p_a.mean.tolist() == one.p_b.mean.tolist() == [0, 0.5]
    assert some.p_b.error == pytest.approx([0.1, 0.6])
    assert np.isnan(one.p_a.error).all(), "one image does not tell how much images differ"


def test_figure_5_keeps_every_pair_and_variant(tmp_path: Path) -> None:
    other = ("wrn-40-1", "wrn-16-1")
    finished_run(tmp_path, "train", 0, 0.8, mte=0.1, noise=(1, 0), teacher="a")
    finished_run(tmp_path, "train", 1, 0.8, mte=0.1, noise=(0, 1), teacher="b")
    finished_run(tmp_path, "train", 0, 0.8, "loss.beta=0", mte=0.1, noise=(0.25, 0.75), teacher="a")
    finished_run(tmp_path, "train", 0, 0.8, mte=0.1, noise=(0.1, 0.9), pair=other)
    groups = group_runs(find_runs([tmp_path]))
    found = {one.network: one for one in noise.predictions_of(groups, "cifar10", PAIR)}
    assert found["wrn-16-1, zero-shot"].shares == pytest.approx([0.5, 0.5])
    assert found["wrn-16-1, zero-shot [loss.beta=0]"].shares == pytest.approx([0.25, 0.75])
    assert found["teacher wrn-40-2"].n == 2, "each teacher once"
    (student,) = (one for one in noise.predictions_of(groups, "cifar10", other) if one.method == "train")
    assert student.shares == pytest.approx([0.1, 0.9])


def test_figure_3_shows_every_group(tmp_path: Path) -> None:
    with_pictures = [
        finished_run(tmp_path / "runs", "train", 0, 0.8),
        finished_run(tmp_path / "runs", "train", 1, 0.8, "loss.beta=0"),
        finished_run(tmp_path / "runs", "train", 0, 0.8, pair=("wrn-40-1", "wrn-16-1")),
    ]
    for path in with_pictures:
        (path / "figures").mkdir()
        (path / "figures/pseudo_images.png").write_bytes(b"a picture")
    finished_run(tmp_path / "runs", "train", 0, 0.8, "loss.beta=0")  # the first seed has none
    finished_run(tmp_path / "runs", "train", 0, 0.8, pair=("wrn-40-2", "wrn-40-1"))
    assert command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0
    markdown = (tmp_path / "out/report.md").read_text()
    assert markdown.count("](figures/figure_3") == 3
    assert "cifar10 wrn-40-2 → wrn-40-1: no pictures are kept" in markdown
