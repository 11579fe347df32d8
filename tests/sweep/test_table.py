"""Which trial is chosen, what is averaged, how ranks are compared: worked out by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.sweep.test_space import ONE, _write
from zskt_dist.evaluation.held_out import ranked_by
from zskt_dist.sweep.plots import sweep_figures
from zskt_dist.sweep.space import load_sweep
from zskt_dist.sweep.table import best_trial, compares_teachers, means_over_seeds, rank_correlations, trial_row

KEYS = ["loss.beta"]


def _table(rows: Sequence[tuple[float | None, int, str, float | None, float | None]]) -> pd.DataFrame:
    """(beta, seed, state, score, accuracy) of each trial."""
    names = ("loss.beta", "seed", "state", "score", "accuracy")
    frame = pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows])
    return frame.assign(
        trial=range(len(rows)),
        setting=[json.dumps(row[0]) for row in rows],
        label_free_score=frame["score"],
        mte=None,
        yardstick_agreement=None,
        held_out_agreement=None,
        noise_agreement=None,
        generator_loss_drift=None,
    )


TABLE = _table(
    [
        (0, 0, "finished", 0.80, 0.70),
        (0, 1, "finished", 0.90, 0.72),
        (9, 0, "finished", 0.95, 0.60),
        (9, 1, "finished", 0.60, 0.90),
        (5, 0, "failed", None, None),
        (5, 1, "stopped", 0.99, None),
    ]
)


def test_the_best_setting_is_that_of_the_best_mean_and_then_its_best_seed() -> None:
    """The single best score, 0.95, belongs to a setting that is worse on average."""
    assert best_trial(TABLE, "label_free_score") == 1
    assert best_trial(TABLE, "accuracy") == 3
    assert best_trial(TABLE.iloc[4:], "label_free_score") is None


def test_means_are_over_the_seeds_of_finished_trials() -> None:
    means = means_over_seeds(TABLE, KEYS)
    assert list(means["loss.beta"]) == [0, 9]
    assert list(means["n"]) == [2, 2]
    assert means["score"].tolist() == pytest.approx([0.85, 0.775])
    assert means["accuracy_std"].tolist() == pytest.approx([0.01, 0.15])
    assert "mte" not in means


def test_null_and_lists_are_settings_like_others() -> None:
    """A column of null and numbers, as pandas makes it; and one of lists."""
    rows = [(None, 0, "finished", 0.9, 0.7), (None, 1, "finished", 0.8, 0.7), (4, 0, "finished", 0.6, 0.9)]
    table = _table(rows)
    assert means_over_seeds(table, KEYS)["score"].tolist() == pytest.approx([0.85, 0.6])
    assert best_trial(table, "label_free_score") == 0
    lists = table.assign(**{"loss.beta": [[1, 2], None, [1, 2]]}, setting=["[1, 2]", "null", "[1, 2]"])
    assert means_over_seeds(lists, KEYS)["n"].tolist() == [2, 1]
    assert means_over_seeds(lists, KEYS)["loss.beta"].tolist() == [[1, 2], None]
    assert best_trial(lists, "label_free_score") == 1
    assert "over loss.beta" not in sweep_figures(table, KEYS)


def test_rank_correlation_is_spearmans_over_settings() -> None:
    """Ranks of scores 2 3 4 1 and of accuracies 2 3 1 4: rho = 1 - 6 * (0 + 0 + 9 + 9) / (4 * 15)."""
    means = [(0, 0.80, 0.70), (1, 0.90, 0.72), (2, 0.95, 0.60), (3, 0.60, 0.90)]
    rows = [(b, seed, "finished", s + sign * 0.3, a) for b, s, a in means for seed, sign in ((0, -1), (1, 1))]
    table = _table(rows).assign(generator_loss_drift=[0.2, -0.2, 0.3, -0.1, -0.4, 0.4, 0.1, -0.1])
    found = {row["score"]: row for row in rank_correlations(table).to_dict("records")}
    assert found["score"]["rank correlation with accuracy"] == pytest.approx(1 - 6 * 18 / 60)
    assert found["score"]["n"] == 4, "settings, and not the eight trials"
    assert "p" not in found["score"]
    drift = found["|generator_loss_drift|"]
    assert drift["rank correlation with accuracy"] == pytest.approx(_drift_rho())
    assert rank_correlations(table.iloc[:6]).empty
    assert rank_correlations(table.assign(setting="")).empty


def _drift_rho() -> float:
    """Sizes 0.2 0.2 0.4 0.1 have ranks 2.5 2.5 4 1, accuracies 2 3 1 4; Pearson's r of the ranks."""
    x, y = [2.5, 2.5, 4, 1], [2, 3, 1, 4]
    covariance = sum((a - 2.5) * (b - 2.5) for a, b in zip(x, y, strict=True))
    return covariance / math.sqrt(sum((a - 2.5) ** 2 for a in x) * sum((b - 2.5) ** 2 for b in y))


def test_without_test_images_the_score_chooses_and_is_drawn() -> None:
    table = TABLE.assign(accuracy=None, **{"teacher.arch": ["a", "a", "b", "b", "a", "b"], "student.arch": "c"})
    assert best_trial(table, "label_free_score") == 1
    assert rank_correlations(table).empty
    assert "accuracy" not in means_over_seeds(table, KEYS)
    figures = sweep_figures(table, [*KEYS, "teacher.arch", "student.arch"])
    assert figures["score against accuracy"] is None
    matrix = figures["pairs"]
    assert matrix is not None
    assert {text.get_text() for text in matrix.axes[0].texts} == {"85.00", "77.50"}, "(80 + 90) / 2, (95 + 60) / 2"


def test_what_nothing_was_measured_of_is_not_drawn() -> None:
    """No data, no held-out images, no pool."""
    table = TABLE.assign(score=None, accuracy=None, **{"teacher.arch": ["a", "a", "b", "b", "a", "b"]})
    table = table.assign(**{"student.arch": "c"})
    assert sweep_figures(table, [*KEYS, "teacher.arch", "student.arch"]) == {}


def test_different_teachers_are_noticed() -> None:
    assert not compares_teachers(TABLE.assign(teacher_weights=["a", "a", "a", "a", None, None]))
    assert compares_teachers(TABLE.assign(teacher_weights=["a", "a", "a", "b", None, None]))


def test_figures_are_drawn_for_what_varies() -> None:
    pairs = TABLE.assign(**{"teacher.arch": ["a", "a", "b", "b", "a", "b"], "student.arch": "c"})
    figures = sweep_figures(pairs, [*KEYS, "teacher.arch", "student.arch"])
    assert sorted(figures) == ["over loss.beta", "pairs", "score against accuracy"]
    matrix = figures["pairs"]
    assert matrix is not None
    shown = {text.get_text() for text in matrix.axes[0].texts}
    assert shown == {"71.00", "75.00"}, "mean accuracy over the trials of each pair, in percent"
    assert sweep_figures(TABLE.iloc[4:], KEYS) == {}
    over = sweep_figures(TABLE, KEYS)["over loss.beta"]
    assert over is not None
    (line,) = [line for line in over.axes[0].get_lines() if len(line.get_xdata()) == 2]
    assert [float(y) for y in line.get_ydata()] == pytest.approx([71, 75])
    assert not any(math.isnan(float(y)) for y in line.get_ydata())


ESTIMATES: list[dict[str, float]] = [
    {"yardstick_agreement": 0.7, "label_free_score": 0.2},
    {"label_free_score": 0.3, "held_out_kl": 1.0},
    {"noise_agreement": 0.5},
    {},
]
"""Of finished trials; the third is as an inversion of a teacher without batch norm."""


def _rows(folder: Path, pool: Sequence[float]) -> list[dict[str, Any]]:
    """Of these four trials and one that was stopped, whose score was 0.1; `pool`: agreement of the first four."""
    space = ONE + "  seed: {grid: [0, 1, 2, 3, 4]}\n"
    _, (*finished, stopped) = load_sweep(_write(folder, space), [f"runs_dir={folder}/runs"])
    for trial, estimates in zip(finished, ESTIMATES, strict=True):
        trial.run.finish({"status": "finished", "estimates": estimates})
        trial.state, trial.score = "finished", ranked_by(estimates)
    stopped.state, stopped.score = "stopped", 0.1
    pooled = {str(trial.run.path): score for trial, score in zip(finished, pool, strict=False)}
    return [trial_row(trial, pooled) for trial in (*finished, stopped)]


def test_agreement_on_the_yardstick_goes_before_pooled_agreement(tmp_path: Path) -> None:
    """And that before a trial's own score."""
    assert [row["score"] for row in _rows(tmp_path, [0.9, 0.8, 0.6, 0.4])] == [0.7, 0.8, 0.6, 0.4, 0.1]
    assert [row["score"] for row in _rows(tmp_path, [])] == [0.7, 0.3, 0.5, None, 0.1]


def test_the_label_free_score_of_a_trial_is_that_of_its_run(tmp_path: Path) -> None:
    """And nothing where its run has none, however it is ranked."""
    rows = _rows(tmp_path, [0.9, 0.8, 0.6, 0.4])
    assert [row["label_free_score"] for row in rows] == [0.2, 0.3, None, None, None]
    assert [row["yardstick_agreement"] for row in rows] == [0.7, None, None, None, None]
