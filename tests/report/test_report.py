"""The report from hand-made runs: means, deviations and differences by hand arithmetic; gaps name a command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zskt_dist.config import dump_yaml, load_config
from zskt_dist.report import __main__ as command
from zskt_dist.report import paper, tables
from zskt_dist.report.runs import find_runs, group_runs

KINDS = {"train": "student", "distill": "student", "finetune": "student", "scratch": "student", "teacher": "teacher"}


def _run(
    folder: Path,
    kind: str,
    seed: int,
    accuracy: float,
    *,
    many: int | None = None,
    mte: float | None = None,
    iterations: int = 80_000,
    pair: tuple[str, str] = ("wrn-40-2", "wrn-16-1"),
) -> None:
    path = folder / f"cifar10/{kind}-{many}-{seed}-{pair[1]}"
    path.mkdir(parents=True)
    overrides = [f"seed={seed}", f"data.images_per_class={many or 'null'}", f"iterations={iterations}"]
    overrides += [f"teacher.arch={pair[0]}", f"student.arch={pair[1]}", "data.name=cifar10"]
    (path / "config.yaml").write_text(dump_yaml(load_config(None, overrides)))
    student = {"arch": pair[1], "params": 1, "accuracy_last": accuracy, "agreement": accuracy, "sha256": "0"}
    teacher = {"arch": pair[0], "params": 2, "accuracy": accuracy if kind == "teacher" else 0.95}
    result: dict[str, Any] = {
        "status": "finished",
        "command": "pretrain" if kind in ("teacher", "scratch") else kind,
        "config_hash": f"{kind}{seed}",
        "seed": seed,
        "dataset": "cifar10",
        "images_per_class": many,
        "iterations": iterations,
        "seconds": 10,
        "teacher": None if kind == "scratch" else teacher,
        "student": None if kind == "teacher" else student,
        "mte": mte and {"value": mte, "steps": 100, "step_size": 1.0, "images": 50, "stepped": "student"},
    }
    (path / "result.json").write_text(json.dumps(result))
    if mte is not None:
        curves = {name: [0.1, 0.5] for name in ("p_a", "p_b", "p_a_standard_error", "p_b_standard_error")}
        answer = {
            "mean_curves": curves,
            "calibration": {"student": {"ece": 0.25}},
            "noise": {"images": 10, "student": [0.5, 0.5], "teacher": [1.0, 0.0]},
            "confusion": {"student": [[1, 0], [0, 1]]},
        }
        (path / "evaluation").mkdir()
        (path / "evaluation/evaluation.json").write_text(json.dumps(answer))


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    (row,) = frame.to_dict("records")
    return dict(row)


def test_table_1_has_means_deviations_and_the_distance_to_the_paper(tmp_path: Path) -> None:
    accuracies = [0.80, 0.84, 0.85]
    for seed, accuracy in enumerate(accuracies):
        _run(tmp_path, "train", seed, accuracy)
        _run(tmp_path, "distill", seed, accuracy - 0.1, many=200)
    _run(tmp_path, "distill", 0, 0.99, many=50)
    _run(tmp_path, "teacher", 0, 0.95)
    row = _table(tables.table_1(group_runs(find_runs([tmp_path]))))
    mean, std = 100 * np.mean(accuracies), 100 * np.std(accuracies)
    assert row["zero-shot"] == f"{mean:.2f} ± {std:.2f} (n=3)"
    assert row["zero-shot: paper"] == "83.69"
    assert row["zero-shot: difference"] == f"{mean - 83.69:+.2f}"
    assert row["KD+AT (M)"] == f"{mean - 10:.2f} ± {std:.2f} (n=3) (M=200)"
    assert row["KD+AT: paper"] == "81.25"
    assert row["teacher"] == "95.00 (n=1)"
    assert row["teacher: difference"] == "+0.27"
    assert "zskt_dist.pretrain" in row["scratch (no teacher)"]
    assert "supervised.network=student" in row["scratch (no teacher)"]


def test_another_length_is_not_compared_with_the_paper(tmp_path: Path) -> None:
    _run(tmp_path, "train", 0, 0.8, iterations=500)
    assert not [name for name in _table(tables.table_1(group_runs(find_runs([tmp_path])))) if "paper" in name]


def test_runs_of_other_settings_are_not_averaged_together(tmp_path: Path) -> None:
    _run(tmp_path, "train", 0, 0.8)
    _run(tmp_path, "train", 1, 0.6)
    _run(tmp_path, "train", 0, 0.2, iterations=500, pair=("wrn-40-2", "wrn-16-2"))
    groups = group_runs(find_runs([tmp_path, tmp_path]))
    assert sorted((len(group.runs), round(group.accuracy.mean, 6)) for group in groups) == [(1, 20), (2, 70)]


def test_the_whole_report_stands_alone(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    for seed in (0, 1):
        _run(runs, "train", seed, 0.8, mte=0.2 + seed / 10)
        for many in (10, 50):
            for kind in ("distill", "scratch", "finetune"):
                _run(runs, kind, seed, 0.5 + many / 1000, many=many, mte=0.7 if kind == "distill" else None)
    assert command.main([str(runs), "--out", str(out), "--no-mlflow", "--title", "All of it"]) == 0
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert "0.250 ± 0.050" in markdown
    assert "+0.030" in markdown, "the paper's MTE is 0.22"
    assert "Figure 3" in markdown
    assert "python -m zskt_dist.train" in markdown, "no pseudo-images: a command that makes some"
    assert page.count("data:image/png;base64,") == markdown.count("![") == 3
    assert "http" not in page
    assert 'src="figures' not in page
    assert len(pd.read_csv(out / "tables/runs.csv")) == 7
    assert "nan" not in markdown


def test_nothing_to_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path), "--no-mlflow"]) == 2
    assert capsys.readouterr().err == f"error: no finished run in {tmp_path}\n"
    assert command.main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("train", "cifar10", ("wrn-40-2", "wrn-16-1"), None), 83.69),
        (("teacher", "cifar10", ("wrn-40-1", None), None), 93.18),
        (("scratch", "cifar10", (None, "wrn-16-2"), None), 93.97),
        (("scratch", "cifar10", (None, "wrn-16-1"), 25), 33.5),
        (("finetune", "svhn", ("wrn-40-2", "wrn-16-1"), 100), 94.41),
        (("distill", "svhn", ("wrn-40-2", "wrn-16-1"), None), 95.88),
        (("train", "svhn", ("wrn-40-2", "wrn-16-1"), None), 94.06),
        (("train", "digits", ("wrn-40-2", "wrn-16-1"), None), None),
        (("train", "cifar10", ("wrn-16-1", "wrn-10-1"), None), None),
        (("distill", "cifar10", ("wrn-16-2", "wrn-16-1"), 10), None),
    ],
)
def test_numbers_of_the_paper(arguments: tuple[Any, ...], value: float | None) -> None:
    reported = paper.accuracy(*arguments)
    assert (reported and reported.mean) == value
