"""Which runs count: once each, with those they differ from in the seed alone, and named by what is special."""

import logging
import os
from pathlib import Path

import pytest

from tests.support.finished import finished_run
from zskt_dist.config import load_config
from zskt_dist.report import __main__ as command
from zskt_dist.report import noise, paper, tables
from zskt_dist.report.recipes import central, recipe_of
from zskt_dist.report.runs import METHODS, Group, find_runs, group_runs

CONFIGS = Path(__file__).parents[2] / "configs"


def _groups(folder: Path) -> list[Group]:
    return group_runs(find_runs([folder]))


def test_what_fresh_has_put_aside_is_no_other_seed(tmp_path: Path) -> None:
    finished_run(tmp_path, "train", 0, 0.8, name="run")
    aside = finished_run(tmp_path, "train", 0, 0.2, name="run.before-20260101-120000")
    (group,) = _groups(tmp_path)
    assert group.accuracy == (80, 0, 1)
    (group,) = _groups(aside)
    assert group.accuracy == (20, 0, 1), "named itself it is reported"


def test_a_repeated_seed_counts_once_and_the_report_says_so(tmp_path: Path) -> None:
    for number, (name, accuracy) in enumerate((("older", 0.2), ("newest", 0.8), ("old", 0.3))):
        path = finished_run(tmp_path / "runs", "train", 0, accuracy, name=name)
        os.utime(path / "result.json", (1000 + number % 2, 1000 + number % 2))
    finished_run(tmp_path / "runs", "train", 1, 0.6)
    (group,) = _groups(tmp_path / "runs")
    assert group.accuracy == (pytest.approx(70), pytest.approx(10), 2)
    assert sorted(run.directory.path.name for run in group.dropped) == ["old", "older"]
    assert command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0
    assert "old (seed 0)" in (tmp_path / "out/report.md").read_text()


def test_an_unreadable_configuration_leaves_out_its_run_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finished_run(tmp_path, "train", 0, 0.8)
    broken = finished_run(tmp_path, "train", 1, 0.2)
    (broken / "config.yaml").write_text("loss: {betta: 1}\n")
    with caplog.at_level(logging.WARNING):
        (group,) = _groups(tmp_path)
    assert group.accuracy == (80, 0, 1)
    assert str(broken / "config.yaml") in caplog.text


def test_students_of_pseudo_data_are_no_zero_shot_students(tmp_path: Path) -> None:
    finished_run(tmp_path, "train", 0, 0.8, "loss.beta=0")
    finished_run(tmp_path, "train", 1, 0.2, "loss.beta=0", "pseudo_data=folder")
    (group,) = _groups(tmp_path)
    assert group.accuracy == (80, 0, 1)


def test_teachers_of_other_recipes_are_not_averaged(tmp_path: Path) -> None:
    for seed in (0, 1):
        finished_run(tmp_path, "teacher", seed, 0.95)
        finished_run(tmp_path, "teacher", seed, 0.5, "supervised.learning_rate=5")
        finished_run(tmp_path, "teacher", seed, 0.7, "loss.beta=0", "data.augment=none")
    assert [(group.label, round(group.accuracy.mean), len(group.runs)) for group in _groups(tmp_path)] == [
        ("", 95, 2),
        ("data.augment=none", 70, 2),
        ("supervised.learning_rate=5", 50, 2),
    ]


def test_a_teachers_seed_may_be_the_runs_or_its_own(tmp_path: Path) -> None:
    finished_run(tmp_path, "teacher", 0, 0.9, pair=("lenet-2", "lenet"), dataset="digits")
    finished_run(tmp_path, "teacher", 1, 0.8, pair=("lenet-2", "lenet"), dataset="digits")
    (group,) = _groups(tmp_path)
    assert group.accuracy.n == 2


def test_table_1_shows_the_teachers_that_taught(tmp_path: Path) -> None:
    finished_run(tmp_path, "teacher", 0, 0.99, pair=("lenet-2", "lenet"), dataset="digits")  # not used by any student
    for seed in (0, 1, 2):
        finished_run(tmp_path, "train", seed, 0.8, pair=("lenet-2", "lenet"), dataset="digits", teacher="shared")
    (row,) = tables.table_1(_groups(tmp_path)).to_dict("records")
    assert row["teacher"] == "95.00 (n=1)"


def test_a_downloaded_teacher_is_known_by_its_name(tmp_path: Path) -> None:
    """Its folder is called after the MLflow run."""
    pair = ("lenet-2", "lenet")
    teacher = finished_run(tmp_path, "teacher", 0, 0.95, pair=pair, dataset="digits", name="theirs")
    teacher.rename(teacher.with_name("3f2504e04f8911d39a0c0305e82c3301"))
    finished_run(tmp_path, "train", 0, 0.8, mte=0.1, pair=pair, dataset="digits", teacher="theirs")
    groups = _groups(tmp_path)
    (row,) = tables.table_1(groups).to_dict("records")
    assert "teacher teacher0" in row["config"]
    (shown, _) = noise.predictions_of(groups, "digits", pair)
    assert shown.hashes == "teacher0"


def test_only_what_is_as_in_the_paper_is_compared_with_it(tmp_path: Path) -> None:
    finished_run(tmp_path, "train", 0, 0.9, "loss.beta=0", "transfer.pseudo_batch=fresh", mte=0.1)
    (group,) = _groups(tmp_path)
    assert group.label == "transfer.pseudo_batch=fresh, loss.beta=0"
    assert tables.setting(group) == "zero-shot [transfer.pseudo_batch=fresh, loss.beta=0]"
    (row,) = tables.table_1([group]).to_dict("records")
    assert row["zero-shot"] == "missing"
    (row,) = tables.table_2([group]).to_dict("records")
    assert row["paper"] == row["difference"] == ""


def test_an_ablation_never_stands_for_its_method(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        for change in ("loss.beta=0", "loss.divergence=reverse_kl", "generator_terms.diversity=1"):
            finished_run(tmp_path, "train", seed, 0.1, change)
    finished_run(tmp_path, "train", 0, 0.8)
    (row,) = tables.table_1(_groups(tmp_path)).to_dict("records")
    assert row["zero-shot"] == "80.00 (n=1)"


def test_kd_of_another_m_is_not_compared_with_the_papers_mte(tmp_path: Path) -> None:
    finished_run(tmp_path, "distill", many=10, mte=0.5)
    finished_run(tmp_path, "distill", many=200, mte=0.5)
    assert dict(tables.table_2(_groups(tmp_path))[["student", "paper"]].to_numpy().tolist()) == {
        "KD+AT, M = 10": "",
        "KD+AT, M = 200": "0.68",
    }


def test_without_a_paper_the_centre_of_the_ablations_is_the_reference(tmp_path: Path) -> None:
    common = ("transfer.pseudo_batch=fresh", "optimizer.student_lr=4e-3")
    for special in ((), ("loss.beta=0",), ("loss.divergence=reverse_kl",)):
        finished_run(tmp_path, "train", 0, 0.8, *common, *special, dataset="digits", pair=("lenet-2", "lenet"))
    assert {group.label for group in _groups(tmp_path)} == {"", "loss.beta=0", "loss.divergence=reverse_kl"}


@pytest.mark.parametrize("kind", ["teacher", "train"])
def test_parquet_files_of_two_folders_are_two_data_sets(tmp_path: Path, kind: str) -> None:
    """Their results name the folder's last part alone."""
    for seed, root in enumerate(("/data/v1/hf", "/data/v1/hf", "/data/v2/hf")):
        place = ("data.name=parquet", f"data.root={root}")
        finished_run(tmp_path / "parquet", kind, seed, 0.9 - seed / 10, *place, dataset="hf")
        finished_run(tmp_path / "digits", kind, seed, 0.8, f"data.root={root}", dataset="digits")
    assert [(group.label, group.accuracy) for group in _groups(tmp_path / "parquet")] == [
        ("", (pytest.approx(85), pytest.approx(5), 2)),
        ("data.root=v2/hf", (pytest.approx(70), 0, 1)),
    ]
    (group,) = _groups(tmp_path / "digits")
    assert group.accuracy.n == 3, "the name says which data they are, wherever they lie"


def test_an_option_that_is_not_there_is_a_difference(tmp_path: Path) -> None:
    """Also in what only the reference has."""
    for special in ((), ("loss.beta=0",), ("loss.divergence=reverse_kl",)):
        finished_run(tmp_path, "train", 0, 0.8, "student.options.depth=9", *special, dataset="digits")
    finished_run(tmp_path, "train", 0, 0.2, dataset="digits")
    finished_run(tmp_path, "train", 0, 0.2, "engine.batch_norm=sync", "student.options.depth=9", dataset="digits")
    labels = [group.label for group in _groups(tmp_path)]
    assert labels == [
        "",
        "engine.batch_norm=sync",
        "loss.beta=0",
        "loss.divergence=reverse_kl",
        "student.options.depth=absent",
    ]


def test_the_plainest_is_the_centre_of_two() -> None:
    plain, special = (recipe_of(load_config(None, words), "train") for words in ([], ["loss.beta=0"]))
    assert central([special, plain], "train") == plain


def test_where_a_run_was_made_does_not_matter_and_its_workers_do(tmp_path: Path) -> None:
    places = ("launch.kind=ray", "device=cpu", "runs_dir=elsewhere", "evaluation.every=7", "speed.compile=true")
    for seed, place in enumerate((*places, "speed.channels_last=false", "engine.activation_checkpointing=true")):
        finished_run(tmp_path, "train", seed, 0.8, place)
    finished_run(tmp_path, "train", 0, 0.8, "launch.workers=2")
    assert [(group.label, len(group.runs)) for group in _groups(tmp_path)] == [("", 7), ("launch.workers=2", 1)]


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("cifar10_*.yaml")) + sorted(CONFIGS.glob("svhn_*.yaml")))
def test_the_papers_recipe_is_that_of_the_shipped_configurations(file: Path) -> None:
    config = load_config(file)
    expected = paper.configuration(config.data.name, (config.teacher.arch, config.student.arch))
    assert expected is not None
    for method in METHODS:
        assert recipe_of(config, method) == recipe_of(expected, method)


def test_the_paper_has_no_settings_for_other_pairs() -> None:
    assert paper.configuration("cifar10", ("wrn-16-1", "wrn-10-1")) is None
    assert paper.configuration("svhn", ("wrn-16-2", "wrn-16-1")) is None
    assert paper.configuration("digits", ("wrn-40-2", "wrn-16-1")) is None
    assert paper.configuration("svhn", ("wrn-40-2", None)) is not None
