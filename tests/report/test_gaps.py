"""The commands that fill what is missing: they parse, and the run they describe is the one that is missing."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.finished import finished_run
from zskt_dist.config import Config, load_config
from zskt_dist.report import __main__ as command
from zskt_dist.report import paper
from zskt_dist.report.gaps import Gap, evaluation_gaps, figure_2_gaps, table_1_gaps
from zskt_dist.report.recipes import recipe_of
from zskt_dist.report.runs import find_runs, group_runs

DIGITS = {"dataset": "digits", "pair": ("wrn-16-2", "wrn-10-1")}


def _config(gap: Gap) -> tuple[str, Config]:
    """The verb and the configuration of a command line, read as the verbs do."""
    python, m, module, *rest = shlex.split(gap.command)
    assert (python, m) == ("python", "-m")
    path = rest[1] if rest[0] == "--config" else None
    return module.removeprefix("zskt_dist."), load_config(path, rest[2:] if path else rest)


def test_scratch_is_trained_on_all_images_with_all_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1, 2):
        finished_run(tmp_path / "runs", "distill", seed, many=200)
    gaps = {gap.what: gap for gap in table_1_gaps(group_runs(find_runs([tmp_path / "runs"])))}
    assert sorted(gaps) == [
        "cifar10 wrn-40-2 → wrn-16-1, scratch (no teacher)",
        "cifar10 wrn-40-2 → wrn-16-1, zero-shot",
    ]
    scratch = gaps["cifar10 wrn-40-2 → wrn-16-1, scratch (no teacher)"]
    verb, config = _config(scratch)
    assert (verb, config.supervised.network, config.data.images_per_class) == ("pretrain", "student", None)
    assert config.seeds == (0, 1, 2)
    assert config.name is None
    assert " --config runs/cifar10/distill-200-0" in scratch.command, "as seen from the current folder"


def test_kd_is_asked_for_with_an_m_that_the_data_has(tmp_path: Path) -> None:
    finished_run(tmp_path, "train", iterations=160, **DIGITS)
    finished_run(tmp_path, "scratch", many=50, **DIGITS)
    (gap,) = (gap for gap in table_1_gaps(group_runs(find_runs([tmp_path]))) if "KD+AT" in gap.what)
    verb, config = _config(gap)
    assert (verb, config.data.images_per_class) == ("distill", 50)


@pytest.mark.parametrize("special", ["loss.beta=0", "student.options.depth=9"])
def test_the_papers_cells_are_filled_as_in_the_paper(tmp_path: Path, special: str) -> None:
    """Also where the only neighbour is an ablation of another length."""
    finished_run(tmp_path, "train", 3, 0.8, special, iterations=500)
    gaps = list(table_1_gaps(group_runs(find_runs([tmp_path]))))
    assert len(gaps) == 4, "teacher, scratch, KD+AT, zero-shot"
    for gap in gaps:
        verb, config = _config(gap)
        expected = paper.configuration("cifar10", ("wrn-40-2", "wrn-16-1"))
        assert expected is not None
        method = {"pretrain": "scratch" if config.supervised.network == "student" else "teacher"}.get(verb, verb)
        assert recipe_of(config, method) == recipe_of(expected, method)
        assert config.seed == 3
        assert config.data.images_per_class == (200 if verb == "distill" else None)


def test_every_method_and_m_is_a_gap_of_its_own(tmp_path: Path) -> None:
    for many in (2, 10):
        finished_run(tmp_path, "distill", many=many, **DIGITS)
    finished_run(tmp_path, "scratch", many=10, **DIGITS)
    gaps = list(figure_2_gaps(group_runs(find_runs([tmp_path]))))
    assert [(verb, config.data.images_per_class) for verb, config in map(_config, gaps)] == [
        ("pretrain", 2),
        ("finetune", 2),
        ("finetune", 10),
    ]
    finished_run(tmp_path / "paper", "distill", many=200)
    finished_run(tmp_path / "paper", "distill", many=10)
    gaps = list(figure_2_gaps(group_runs(find_runs([tmp_path / "paper"]))))
    papers = (10, 25, 50, 75, 100)
    assert [_config(gap)[1].data.images_per_class for gap in gaps] == [*papers, *papers[1:], *papers]


def test_runs_that_will_be_gone_are_described_in_full(tmp_path: Path) -> None:
    finished_run(tmp_path, "train", 0, 0.8, "loss.temperature=2", "launch.workers=2", iterations=160, **DIGITS)
    groups = group_runs(find_runs([tmp_path], lent=tmp_path))
    for gap in table_1_gaps(groups):
        assert str(tmp_path) not in gap.command
        _, config = _config(gap)
        assert (config.iterations, config.loss.temperature, config.student.arch) == (160, 2, "wrn-10-1")
    (gap, *_) = evaluation_gaps(groups)
    assert str(tmp_path) not in gap.command
    assert gap.command.startswith("python -m zskt_dist.evaluate runs/digits/train-")


def test_runs_of_a_store_that_will_be_gone_here_are_told_by_their_uri(tmp_path: Path) -> None:
    place = "s3://bucket/runs?region=eu-west-1"
    finished_run(tmp_path, "train", 0, 0.8, f"runs_dir={place}", name="run", **DIGITS)
    groups = group_runs(find_runs([tmp_path], lent=tmp_path))
    (gap,) = evaluation_gaps(groups)
    assert shlex.split(gap.command)[-1] == "s3://bucket/runs/digits/run?region=eu-west-1"
    assert {_config(gap)[1].runs_dir for gap in table_1_gaps(groups)} == {place}


def test_evaluate_is_told_which_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        finished_run(tmp_path / "runs", "train", seed, name=f"run{seed}")
    finished_run(tmp_path / "runs", "distill", many=200, mte=0.5)
    assert [gap.command for gap in evaluation_gaps(group_runs(find_runs([tmp_path / "runs"])))] == [
        f"python -m zskt_dist.evaluate runs/cifar10/run{seed}" for seed in (0, 1)
    ]


def test_without_any_student_the_first_command_is_a_zero_shot_run(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs", "scratch", 2, iterations=160, **DIGITS)
    assert command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0
    markdown = (tmp_path / "out/report.md").read_text()
    assert "FILE" not in markdown
    told = re.findall(r"`(python -m zskt_dist\.train .+?)`", markdown)
    verb, config = _config(Gap("", told[0]))
    assert (verb, config.iterations, config.seed, config.student.arch) == ("train", 160, 2, "wrn-10-1")
