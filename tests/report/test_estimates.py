"""Estimates beside what was measured, from hand-made runs: ranks worked out by hand."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.finished import finished_run
from zskt_dist.launch.summary import print_estimates
from zskt_dist.report import __main__ as command
from zskt_dist.report import estimates
from zskt_dist.report.runs import find_runs, group_runs


def _run(folder: Path, seed: int, accuracy: float, score: float, *, teacher: str = "one") -> None:
    """Agreement on test images is `accuracy`; on pseudo-images `score`, and KL the other way round."""
    path = finished_run(folder, "train", seed, accuracy, teacher=teacher) / "result.json"
    result = json.loads(path.read_text())
    result["estimates"] = {"label_free_score": score, "held_out_agreement": score, "noise_agreement": 0.5}
    entry = {"agreement": score, "kl_50": 1 - score}
    result["estimates"]["sources"] = {"held_out": entry, "noise": {"agreement": 0.5}, "uniform_noise": entry}
    path.write_text(json.dumps(result))


def test_every_run_has_a_row_and_ranks_are_compared(tmp_path: Path) -> None:
    # Ranks of accuracy 1 2 3 4 and of the score 1 3 2 4: rho = 1 - 6 (0 + 1 + 1 + 0) / (4 * 15) = 0.8.
    for seed, (accuracy, score) in enumerate([(0.3, 0.4), (0.5, 0.7), (0.7, 0.6), (0.9, 0.8)]):
        _run(tmp_path, seed, accuracy, score)
    finished_run(tmp_path, "train", 9, 0.99)  # without estimates
    frame = estimates.estimates(group_runs(find_runs([tmp_path])))
    assert frame["accuracy"].tolist() == pytest.approx([30, 50, 70, 90])
    assert frame["held_out"].tolist() == pytest.approx([40, 70, 60, 80])
    ranks = estimates.ranking(frame).set_index("estimate")
    assert "normal noise %" not in ranks.index, "the same everywhere: it ranks nothing"
    assert ranks.loc["label-free score %", "rank correlation with test accuracy"] == "0.80"
    assert ranks.loc["median KL on pseudo-images", "rank correlation with agreement on test images"] == "-0.80"
    assert ranks["runs"].unique().tolist() == [4]
    assert estimates.ranking(frame.iloc[:3]).empty


def test_students_of_other_teachers_are_not_ranked_together(tmp_path: Path) -> None:
    """As those of several seeds, which have each its own."""
    for seed in range(6):
        _run(tmp_path, seed, 0.1 + seed / 10, 0.1 + seed / 10, teacher="shared" if seed < 4 else f"own-{seed}")
    frame = estimates.estimates(group_runs(find_runs([tmp_path])))
    ranks = estimates.ranking(frame)
    assert set(zip(ranks["teacher"], ranks["runs"], strict=True)) == {("wrn-40-2 (shared)", 4)}
    assert [len(runs) for _, runs in estimates.by_teacher(frame)] == [4, 1, 1]
    assert estimates.estimates(group_runs(find_runs([tmp_path / "nowhere"]))).empty


def test_students_of_both_methods_are_ranked_on_their_teachers_yardstick(tmp_path: Path) -> None:
    """Inversion has the yardstick alone; a run without one has no place in its ranks."""
    accuracies = {"train": (0.2, 0.4, 0.6), "inversion": (0.7, 0.9)}
    seen = [0.3, 0.2, None, 0.5, 0.8]  # of the four: 0.2 0.3 0.5 0.8 for accuracies 0.4 0.2 0.7 0.9, so rho = 0.8
    for (kind, seed, accuracy), agreement in zip(
        [(kind, *each) for kind, values in accuracies.items() for each in enumerate(values)], seen, strict=True
    ):
        given = ["inversion.seed_images=mine"] if (kind, seed) == ("inversion", 1) else []
        path = finished_run(tmp_path, kind, seed, accuracy, *given, teacher="one") / "result.json"
        sources = {} if agreement is None else {"yardstick": {"agreement": agreement}}
        sources |= {"noise": {"agreement": 0.5}} if kind == "train" else {}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"estimates": {"sources": sources}}))
    frame = estimates.estimates(group_runs(find_runs([tmp_path])))
    (rank,) = estimates.ranking(frame).to_dict("records")
    assert (rank["estimate"], rank["runs"], rank["rank correlation with test accuracy"]) == ("yardstick %", 4, "0.80")
    shown = estimates.shown(frame)
    assert shown["method"].tolist() == ["zero-shot"] * 3 + ["inversion", "inversion, 1,200 images given"]
    assert shown["yardstick %"].tolist() == ["30.00", "20.00", "", "50.00", "80.00"]


def test_where_all_are_as_good_there_is_no_order(tmp_path: Path) -> None:
    for seed in range(4):
        _run(tmp_path, seed, 0.5, 0.1 + seed / 10)
    ranks = estimates.ranking(estimates.estimates(group_runs(find_runs([tmp_path]))))
    assert set(ranks["rank correlation with test accuracy"]) == {""}


def test_shares_are_shown_in_percent_and_divergences_in_nats(tmp_path: Path) -> None:
    _run(tmp_path, 0, 0.3, 0.4)
    (row,) = estimates.shown(estimates.estimates(group_runs(find_runs([tmp_path])))).to_dict("records")
    assert (row["pseudo-images %"], row["normal noise %"], row["uniform noise %"]) == ("40.00", "50.00", "40.00")
    assert row["median KL on pseudo-images"] == "0.6"
    assert row["test accuracy %"] == "30.00"


def test_the_summary_says_plainly_what_estimates_are() -> None:
    shares = {"agreement": 0.72, "agreement_low": 0.694, "agreement_high": 0.744, "chance_agreement": 0.216}
    console = Console(width=80, record=True, file=io.StringIO())
    print_estimates({"held_out": shares | {"images": 1280, "kl_50": 0.215, "teacher_classes": 10}}, console)
    text = console.export_text()
    assert "│ pseudo-images │  1,280 │ 72.0 (69.4 to 74.4) │   21.6 │ 0.215 │      10 │" in text
    assert "estimates: agreement with the teacher on images that are not real; they say how alike" in text
    print_estimates(None, console)
    assert console.export_text() == "", "nothing was estimated, nothing is said"


def test_the_report_has_the_section_where_there_is_something_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, heading = tmp_path / "runs", "## Estimates without labels"
    finished_run(folder, "train", 0, 0.8)
    assert command.main([str(folder), "--no-mlflow"]) == 0
    assert heading not in Path("runs/report/report.md").read_text()
    for seed in range(1, 5):
        _run(folder, seed, 0.2 * seed, 0.1 * seed)
    assert command.main([str(folder), "--no-mlflow"]) == 0
    text = Path("runs/report/report.md").read_text()
    assert heading in text
    assert "they say how alike the two are there, not how right" in text
    names = ["tables/estimates.csv", "tables/estimates_ranking.csv", "figures/estimates_cifar10-teacher-wrn-40-2.png"]
    assert all(Path("runs/report", name).stat().st_size > 0 for name in names)
