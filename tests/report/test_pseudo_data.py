"""Section 4.3's numbers: the entropy is compared with what uniform predictions would give in such batches."""

import itertools
import json
import math
from pathlib import Path

import pytest

from tests.support.finished import finished_run
from zskt_dist.report import tables
from zskt_dist.report.runs import find_runs, group_runs
from zskt_dist.report.tables import uniform_entropy
from zskt_dist.tracking.local import History


def _entropy(classes: tuple[int, ...]) -> float:
    shares = [classes.count(one) / len(classes) for one in set(classes)]
    return -sum(share * math.log(share) for share in shares)


@pytest.mark.parametrize(("classes", "batch"), [(2, 2), (3, 4), (4, 3), (1, 5)])
def test_the_expectation_is_that_over_all_batches(classes: int, batch: int) -> None:
    every = [_entropy(drawn) for drawn in itertools.product(range(classes), repeat=batch)]
    assert uniform_entropy(classes, batch) == pytest.approx(sum(every) / len(every))


def test_a_batch_of_128_over_ten_classes() -> None:
    assert uniform_entropy(10, 128) == pytest.approx(2.267, abs=5e-4)
    assert uniform_entropy(10, 128) == pytest.approx(math.log(10) - 9 / 256, abs=1e-3), "Miller and Madow's correction"


def test_the_table_takes_the_classes_from_the_run(tmp_path: Path) -> None:
    path = finished_run(tmp_path, "train", 0, 0.8, "batch_size=64")
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(result | {"num_classes": 3}))
    history = History(path / "history.parquet")
    for iteration in (1, 2):
        row = {
            f"{who}_{what}": 0.25 * iteration
            for who in ("teacher", "student")
            for what in ("confidence", "class_entropy")
        }
        history.log({"iteration": iteration, "time": 0, **row})
    history.write()
    rows = tables.pseudo_data(group_runs(find_runs([tmp_path]))).to_dict("records")
    assert [row["network"] for row in rows] == ["teacher wrn-40-2", "student wrn-16-1"]
    for row in rows:
        assert row["entropy of predicted classes"] == "0.375"
        assert row["uniform in such batches"] == f"{uniform_entropy(3, 64):.3f}"
        assert row["log C"] == f"{math.log(3):.3f}"
        assert row["paper"] == "", "another batch size"


def test_the_papers_confidence_stands_beside_runs_of_its_setting(tmp_path: Path) -> None:
    path = finished_run(tmp_path, "train")
    history = History(path / "history.parquet")
    history.log({"iteration": 1, "time": 0, "teacher_confidence": 0.7, "teacher_class_entropy": 1.0})
    history.write()
    (row,) = tables.pseudo_data(group_runs(find_runs([tmp_path]))).to_dict("records")
    assert row["log C"] == f"{math.log(10):.3f}"
    assert (row["paper"], row["difference"]) == ("0.8", "-0.100")
