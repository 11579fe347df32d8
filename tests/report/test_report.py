"""The report from hand-made runs: means, deviations and differences by hand arithmetic; gaps name a command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.finished import PAIR, finished_run
from zskt_dist.report import __main__ as command
from zskt_dist.report import paper, tables
from zskt_dist.report.gaps import table_1_gaps
from zskt_dist.report.runs import find_runs, group_runs


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    (row,) = frame.to_dict("records")
    return {str(key): value for key, value in row.items()}


def test_table_1_has_means_deviations_and_the_distance_to_the_paper(tmp_path: Path) -> None:
    accuracies = [0.80, 0.84, 0.85]
    for seed, accuracy in enumerate(accuracies):
        finished_run(tmp_path, "train", seed, accuracy, teacher=f"t{seed}")
        finished_run(tmp_path, "distill", seed, accuracy - 0.1, many=200, teacher=f"t{seed}")
    finished_run(tmp_path, "distill", 0, 0.99, many=50)
    row = _table(tables.table_1(group_runs(find_runs([tmp_path]))))
    mean, std = 100 * np.mean(accuracies), 100 * np.std(accuracies)
    assert row["zero-shot"] == f"{mean:.2f} ± {std:.2f} (n=3)"
    assert row["zero-shot: paper"] == "83.69 ± 0.58"
    assert row["zero-shot: difference"] == f"{mean - 83.69:+.2f}"
    assert row["KD+AT (M)"] == f"{mean - 10:.2f} ± {std:.2f} (n=3) (M=200)"
    assert row["KD+AT: paper"] == "81.25 ± 0.67"
    assert row["teacher"] == "95.00 ± 0.00 (n=3)", "the three that the students learnt from"
    assert row["teacher: difference"] == "+0.27"
    assert row["scratch (no teacher)"] == "missing"
    assert row["config"] == "KD+AT distill0, distill1, distill2; zero-shot train0, train1, train2"


def test_inversion_stands_beside_algorithm_1_and_is_no_method_of_the_paper(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([0.80, 0.84]):
        finished_run(tmp_path, "train", seed, accuracy, teacher="one")
        finished_run(tmp_path, "inversion", seed, accuracy + 0.05, teacher="one", iterations=9000, mte=0.1)
    groups = group_runs(find_runs([tmp_path]))
    row = _table(tables.table_1(groups))
    assert (row["zero-shot"], row["inversion"]) == ("82.00 ± 2.00 (n=2)", "87.00 ± 2.00 (n=2)")
    assert "zero-shot: paper" in row
    assert "inversion: paper" not in row
    assert [setting["method"] for setting in tables.summary(groups).to_dict("records")] == ["zero-shot", "inversion"]
    assert {row["student"]: row["paper"] for row in tables.table_2(groups).to_dict("records")} == {"inversion": ""}


def test_images_that_a_user_gave_make_a_setting_of_their_own(tmp_path: Path) -> None:
    """Also where no run did without: they never stand for a method without data, and nobody is told to give images."""
    given = "inversion.seed_images=/home/me/photos/mine"
    how = {"dataset": "digits", "pair": ("lenet-2", "lenet"), "iterations": 160}
    for seed in (0, 1):
        finished_run(tmp_path, "inversion", seed, 0.9, given, **how)
    groups = group_runs(find_runs([tmp_path]))
    assert _table(tables.table_1(groups))["inversion"] == "missing"
    (command,) = (gap.command for gap in table_1_gaps(groups) if "inversion" in gap.what)
    assert "inversion.seed_images=null" in command
    finished_run(tmp_path, "inversion", 0, 0.8, **how)
    finished_run(tmp_path, "distill", 0, 0.6, many=10, **how)
    groups = group_runs(find_runs([tmp_path]))
    assert _table(tables.table_1(groups))["inversion"] == "80.00 (n=1)"
    rows = {row["method"]: (row["M"], row["n"]) for row in tables.figure_2(groups).to_dict("records")}
    assert rows == {
        "inversion": (0, 1),
        "inversion [inversion.seed_images=photos/mine]": ("1,200 unlabelled", 2),
        "KD+AT": (10, 1),
    }


def test_what_is_missing_is_one_column(tmp_path: Path) -> None:
    finished_run(tmp_path, "train")
    finished_run(tmp_path, "train", pair=("wrn-40-2", "wrn-16-2"))
    finished_run(tmp_path, "distill", many=200)
    frame = tables.table_1(group_runs(find_runs([tmp_path])))
    assert [name for name in frame.columns if name.startswith("KD+AT") and ":" not in name] == ["KD+AT (M)"]
    assert "missing" in set(frame["KD+AT (M)"])


def test_another_length_is_not_compared_with_the_paper(tmp_path: Path) -> None:
    finished_run(tmp_path, "train", 0, 0.8, iterations=500)
    groups = group_runs(find_runs([tmp_path]))
    assert not [name for name in _table(tables.table_1(groups)) if "paper" in name]
    assert "zero-shot [iterations=500" in _table(tables.summary(groups))["method"]


def test_runs_of_other_settings_are_not_averaged_together(tmp_path: Path) -> None:
    finished_run(tmp_path, "train", 0, 0.8)
    finished_run(tmp_path, "train", 1, 0.6)
    finished_run(tmp_path, "train", 0, 0.2, iterations=500, pair=("wrn-40-2", "wrn-16-2"))
    groups = group_runs(find_runs([tmp_path, tmp_path]))
    assert sorted((len(group.runs), round(group.accuracy.mean, 6)) for group in groups) == [(1, 20), (2, 70)]


def test_figure_2_has_a_table_with_the_papers_numbers(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.84, 0.86)):
        finished_run(tmp_path, "finetune", seed, accuracy, many=100)
        finished_run(tmp_path, "distill", seed, accuracy, "distill.beta=0", many=100)
    finished_run(tmp_path, "train")
    finished_run(tmp_path, "teacher", 0, 0.95)
    rows = {row["method"]: row for row in tables.figure_2(group_runs(find_runs([tmp_path]))).to_dict("records")}
    tuned = rows["zero-shot + finetuning"]
    assert [tuned[key] for key in ("M", "accuracy %", "n", "paper", "difference")] == [
        *(100, "85.00 ± 1.00", 2, "85.91 ± 0.24", "-0.91")
    ]
    assert tuned["config"] == "finetune0, finetune1"
    assert rows["KD+AT [distill.beta=0]"]["paper"] == ""
    assert rows["teacher"]["paper"] == "95.13", "Figure 2's teacher is another than Table 1's"
    assert (rows["zero-shot"]["M"], rows["zero-shot"]["paper"]) == (0, "83.69 ± 0.58")
    assert rows["VID (Ahn et al. 2019)"]["paper"] == "81.59"


def test_the_whole_report_stands_alone(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    for seed in (0, 1):
        finished_run(runs, "train", seed, 0.8, mte=0.2 + seed / 10)
        for many in (10, 50):
            for kind in ("distill", "scratch", "finetune"):
                finished_run(runs, kind, seed, 0.5 + many / 1000, many=many, mte=0.7 if kind == "distill" else None)
    assert command.main([str(runs), "--out", str(out), "--no-mlflow", "--title", "All of it"]) == 0
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert "0.250 ± 0.050" in markdown
    assert "+0.030" in markdown, "the paper's MTE is 0.22"
    assert "Figure 3" not in markdown, "no run has kept pictures"
    assert page.count("data:image/png;base64,") == markdown.count("![") == 3
    assert "http" not in page
    assert 'src="figures' not in page
    assert len(pd.read_csv(out / "tables/runs.csv")) == 7
    assert "nan" not in markdown
    for name in ("table_1", "table_2", "figure_2", "figure_4", "figure_5", "runs"):
        assert "config" in pd.read_csv(out / f"tables/{name}.csv").columns, name
    assert len(pd.read_csv(out / "tables/figure_4.csv")) == 3 * 100, "zero-shot, and KD+AT of both M"


def test_headings_stand_above_something(tmp_path: Path) -> None:
    """A run that was neither evaluated nor given pictures: what is missing stands in one place."""
    finished_run(tmp_path / "runs", "train", 0, 0.8)
    assert command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0
    markdown = (tmp_path / "out/report.md").read_text()
    headings = [line.removeprefix("## ") for line in markdown.splitlines() if line.startswith("## ")]
    assert headings == [
        "Table 1: accuracy of teacher-student pairs",
        "All settings",
        "Missing, and what would make it",
    ]
    missing = markdown.partition("Missing, and what would make it")[2]
    assert "scratch (no teacher)" in missing
    assert missing.count("zskt_dist.evaluate") == 1, "each command once"
    without = {"student": {"arch": PAIR[1], "params": 1, "accuracy_last": None, "agreement": None, "sha256": "0"}}
    path = finished_run(tmp_path / "none", "train", 0, 0.8, dataset="none")
    (path / "result.json").write_text(json.dumps(json.loads((path / "result.json").read_text()) | without))
    assert command.main([str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0
    assert "## Table 1" not in (tmp_path / "out/report.md").read_text()


def test_nothing_to_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path), "--no-mlflow"]) == 2
    assert capsys.readouterr().err == f"error: no finished run in {tmp_path}\n"
    assert command.main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("train", "cifar10", PAIR, None), 83.69),
        (("teacher", "cifar10", ("wrn-40-1", None), None), 93.18),
        (("teacher", "cifar10", ("wrn-40-2", None), None), 94.73),
        (("teacher", "svhn", ("wrn-40-2", None), None), 96.50),
        (("scratch", "cifar10", (None, "wrn-16-2"), None), 93.97),
        (("scratch", "cifar10", (None, "wrn-16-1"), 25), 33.5),
        (("finetune", "svhn", PAIR, 100), 94.41),
        (("distill", "svhn", PAIR, None), 95.88),
        (("train", "svhn", PAIR, None), 94.06),
        (("train", "digits", PAIR, None), None),
        (("train", "cifar10", ("wrn-16-1", "wrn-10-1"), None), None),
        (("distill", "cifar10", ("wrn-16-2", "wrn-16-1"), 10), None),
    ],
)
def test_numbers_of_the_paper(arguments: tuple[Any, ...], value: float | None) -> None:
    reported = paper.accuracy(*arguments)
    assert (reported and reported.mean) == value


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("teacher", "cifar10", ("wrn-40-2", None), None), 95.13),
        (("teacher", "svhn", ("wrn-40-2", None), None), 96.50),
        (("train", "svhn", PAIR, None), 94.37),
        (("vid", "cifar10", PAIR, 100), 81.59),
        (("vid", "svhn", PAIR, 100), None),
    ],
)
def test_numbers_of_figure_2(arguments: tuple[Any, ...], value: float | None) -> None:
    reported = paper.figure_2(*arguments)
    assert (reported and reported.mean) == value
