import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks.measure import (
    alternate,
    arguments,
    convolution_peak,
    effort,
    machine,
    matrix_product_gflops,
    ratio,
    table,
    threads,
    write,
)
from benchmarks.ranks import Ranks
from zskt_dist.distributed.world import World


def test_turns_are_alternated_and_reversed() -> None:
    calls: list[str] = []
    times = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repetitions=3, warm_up=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_of_neighbours() -> None:
    """The machine was ten times slower for a while: the ratio of medians would not be 2."""
    assert ratio({"slow": [2, 20, 2], "fast": [1, 10, 1]}, "slow", "fast") == 2


def test_peaks_are_positive_and_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert matrix_product_gflops(64, device=torch.device("cpu"), calls=2) > 0
    assert convolution_peak(1, channels=(32,), batch=2, repetitions=2) > 0
    assert torch.get_num_threads() == before


def test_an_answer_comes_with_its_machine(tmp_path: Path) -> None:
    options = arguments("about", repetitions=5).parse_args(["--json", str(tmp_path / "new" / "answer.json")])
    assert options.repetitions == 5
    write({"ratio": 2.0}, options.json)
    answer = json.loads(options.json.read_text())
    assert answer["ratio"] == 2.0
    assert answer["machine"] == pytest.approx(machine() | {"load": answer["machine"]["load"]})
    write({"ratio": 2.0}, None)


def test_a_table_is_markdown() -> None:
    assert table(("", "s"), [("one", 1), ("two", "2.0")]) == "|  | s |\n| --- | ---: |\n| one | 1 |\n| two | 2.0 |"


def test_ranks_are_counted_in_though_they_are_no_children() -> None:
    before = effort()["cpu_seconds"]
    with Ranks(1, 1, _Worker) as rank:
        rank("work", 1.0)
    assert effort()["cpu_seconds"] - before > 0.8


class _Worker:
    def __init__(self, world: World) -> None:
        pass

    def work(self, seconds: float) -> None:
        while time.process_time() < seconds:
            pass


def test_a_busy_machine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (9.0, 0.0, 0.0))
    write({"figure": 1}, tmp_path / "busy.json")
    told = capsys.readouterr().err
    assert "CPU-seconds" in told
    assert "the machine was not quiet: others wanted" in told
    spent = json.loads((tmp_path / "busy.json").read_text())["effort"]
    assert 0 < spent["others"] <= 9
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    write({"figure": 1}, None)
    assert "not quiet" not in capsys.readouterr().err
