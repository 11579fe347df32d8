"""What a sweep answers with, from runs made by hand."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.finished import finished_run
from tests.support.results import check_result
from tests.sweep.test_space import ONE, _write
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep import summary
from zskt_dist.sweep.space import load_sweep
from zskt_dist.sweep.summary import conclude, print_sweep


def test_the_result_names_the_best_trial_and_how_scores_rank(tmp_path: Path) -> None:
    betas = [1, 2, 3, 4]
    space = f"  loss.beta: {{grid: {betas}}}\npool_images: 0\n"
    sweep, trials = load_sweep(
        _write(tmp_path, ONE + space), [f"runs_dir={tmp_path}", "experiment=digits", "tracking.uri=none"]
    )
    for trial, beta in zip(trials, betas, strict=True):
        trial.state = "finished"
        run = finished_run(tmp_path, "train", accuracy=beta / 10, dataset="digits", name=trial.run.path.name)
        result = json.loads((run / "result.json").read_text())
        result["estimates"] = {"label_free_score": 1 - beta / 10}
        (run / "result.json").write_text(json.dumps(result))
    directory = RunDirectory(tmp_path / "digits/sweep-one")
    result = conclude(sweep, trials, directory, None)
    check_result(json.loads(directory.result.read_text()))
    assert (result["status"], result["trials"], result["finished"], result["failed"]) == ("finished", 4, 4, 0)
    best = result["best"]
    assert best is not None
    assert (best["settings"], best["score"], best["accuracy"]) == ({"loss.beta": 1}, 0.9, 0.1)
    assert [list(ranking.values()) for ranking in result["rank_correlations"]] == [
        ["score", -1.0, 4],
        ["label_free_score", -1.0, 4],
    ]


def test_trials_that_have_not_finished_are_shown_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However good they were when they were stopped."""
    words = [f"runs_dir={tmp_path}", "experiment=digits", "tracking.uri=none"]
    sweep, trials = load_sweep(_write(tmp_path, ONE + "  seed: {grid: [0, 1, 2]}\npool_images: 0\n"), words)
    for trial, state, score in zip(trials, ("stopped", "finished", "finished"), (0.9, 0.5, 0.7), strict=True):
        trial.state, trial.score = state, score
        if state == "finished":
            trial.run.finish({"status": "finished", "estimates": {"yardstick_agreement": score}})
    directory = RunDirectory(tmp_path / "digits/sweep-one")
    print_sweep(conclude(sweep, trials, directory, None), directory, Console(width=200))
    shown = [word for word in capsys.readouterr().out.split() if word in ("90.00%", "70.00%", "50.00%")]
    assert shown == ["70.00%", "50.00%", "90.00%"]


@pytest.mark.parametrize("second", [{"yardstick_agreement": 0.5}, {"noise_agreement": 0.5}])
def test_the_pool_is_made_only_where_a_trial_lacks_a_yardstick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: dict[str, float]
) -> None:
    pools: list[list[RunDirectory]] = []

    def pooled_agreement(runs: list[RunDirectory], images: int, seed: int) -> dict[str, float]:
        pools.append(runs)
        return {str(run.path): 0.6 for run in runs}

    monkeypatch.setattr(summary, "pooled_agreement", pooled_agreement)
    words = [f"runs_dir={tmp_path}", "experiment=digits", "tracking.uri=none"]
    sweep, trials = load_sweep(_write(tmp_path, ONE + "  seed: {grid: [0, 1]}\n"), words)
    for trial, estimates in zip(trials, ({"yardstick_agreement": 0.4}, second), strict=True):
        trial.state = "finished"
        trial.run.finish({"status": "finished", "estimates": estimates})
    best = conclude(sweep, trials, RunDirectory(tmp_path / "digits/sweep-one"), None)["best"]
    assert best is not None
    by_pool = "yardstick_agreement" not in second
    assert pools == ([[trial.run for trial in trials]] if by_pool else [])
    assert (best["trial"], best["score"]) == (1, 0.6 if by_pool else 0.5)
