import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zskt_dist.tracking import local
from zskt_dist.tracking.local import History, ProgressFile, read_history

ROWS = [
    {"iteration": 10, "time": 1_700_000_000_123, "kl": 0.1 + 0.2},
    {"iteration": 20, "time": 1_700_000_001_000, "kl": 1e-300, "accuracy": 0.5},
    {"iteration": 30, "time": 1_700_000_002_000, "accuracy": 1.0},
]


def _history(path: Path, rows: list[dict[str, float]]) -> History:
    history = History(path)
    for row in rows:
        history.log(row)
    return history


def test_reports_of_one_iteration_share_a_row(tmp_path: Path) -> None:
    history = _history(
        tmp_path / "history.parquet",
        [
            {"iteration": 10, "time": 1, "kl": 0.5},
            {"iteration": 20, "time": 2, "kl": 0.4},
            {"iteration": 20, "time": 3, "accuracy": 0.9},
            {"iteration": 20, "time": 4, "agreement": 0.8},
            {"iteration": 30, "time": 5, "kl": 0.3},
        ],
    )
    assert history.rows == [
        {"iteration": 10, "time": 1, "kl": 0.5},
        {"iteration": 20, "time": 2, "kl": 0.4, "accuracy": 0.9, "agreement": 0.8},  # its time is the first report's
        {"iteration": 30, "time": 5, "kl": 0.3},
    ]


def test_rows_are_copies(tmp_path: Path) -> None:
    row = {"iteration": 1, "time": 1, "kl": 0.5}
    history = _history(tmp_path / "history.parquet", [row])
    row["kl"] = 9.0
    assert history.rows[0]["kl"] == 0.5
    assert row.keys() == {"iteration", "time", "kl"}


def test_round_trip_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.parquet"
    _history(path, ROWS).write()
    assert read_history(path) == ROWS
    assert [list(map(type, row.values())) for row in read_history(path)] == [
        [int, int, float],
        [int, int, float, float],
        [int, int, float],
    ]


def test_file_for_other_tools(tmp_path: Path) -> None:
    """One column per metric, of one type; null where an iteration has none."""
    path = tmp_path / "history.parquet"
    _history(path, ROWS).write()
    table = pq.read_table(path)
    assert {field.name: field.type for field in table.schema} == {
        "iteration": pa.int64(),
        "time": pa.int64(),
        "kl": pa.float64(),
        "accuracy": pa.float64(),
    }
    assert table["kl"].to_pylist() == [0.1 + 0.2, 1e-300, None]
    assert table["accuracy"].to_pylist() == [None, 0.5, 1.0]


def test_what_went_wrong_is_kept(tmp_path: Path) -> None:
    """Not a number is a value, and is told apart from none."""
    path = tmp_path / "history.parquet"
    _history(
        path,
        [
            {"iteration": 1, "time": 1, "kl": math.nan},
            {"iteration": 2, "time": 2, "kl": math.inf},
            {"iteration": 3, "time": 3},
        ],
    ).write()
    first, second, third = read_history(path)
    assert math.isnan(first["kl"])
    assert second["kl"] == math.inf
    assert "kl" not in third


def test_writing_again_replaces(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    history = _history(path, ROWS[:1])
    history.write()
    for row in ROWS[1:]:
        history.log(row)
    history.write()
    assert read_history(path) == ROWS
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    assert read_history(path) == []
    History(path).write()
    assert read_history(path) == []


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(local.time, "monotonic", lambda: self.now)


def test_progress_is_written_seldom_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, path = _Clock(monkeypatch), tmp_path / "progress.json"
    progress = ProgressFile(path)

    def shown_after(seconds: float, iteration: int) -> int:
        clock.now += seconds
        progress.tick("student", iteration, 100)
        state = json.loads(path.read_text())
        assert (state["phase"], state["iterations"]) == ("student", 100)
        return state["iteration"]

    assert shown_after(0.0, 1) == 1
    assert shown_after(0.1, 2) == 1
    assert shown_after(0.1, 3) == 1
    assert shown_after(0.2, 4) == 4
    assert shown_after(0.1, 99) == 4
    assert shown_after(0.0, 100) == 100


def test_progress_shows_the_newest_of_each_metric(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "progress.json")
    progress.show({"iteration": 5, "time": 1, "kl": 0.5})
    progress.show({"iteration": 6, "time": 2, "accuracy": 0.9})
    progress.show({"iteration": 8, "time": 3, "kl": 0.4})
    progress.tick("student", 9, 9)
    state = json.loads((tmp_path / "progress.json").read_text())
    assert state["metrics"] == {"iteration": 8, "time": 3, "kl": 0.4, "accuracy": 0.9}
    assert state["evaluated"] == 6


def test_progress_of_a_run_without_test_images_counts_its_label_free_evaluations(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "progress.json")
    progress.show({"iteration": 5, "time": 1, "label_free_score": 0.5})
    progress.show({"iteration": 7, "time": 2, "kl": 0.5})
    progress.tick("student", 9, 9)
    assert json.loads((tmp_path / "progress.json").read_text())["evaluated"] == 5


def test_progress_of_other_ranks_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ProgressFile(None).tick("student", 9, 9)
    assert list(tmp_path.iterdir()) == []


def test_a_bar_that_cannot_be_drawn_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ProgressFile(tmp_path / "file" / "progress.json").tick("student", 1, 2)
    assert not (tmp_path / "file").stat().st_size
