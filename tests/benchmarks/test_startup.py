import time

import pytest

from benchmarks import startup_programs
from benchmarks.startup import Program, measure, programs
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.tasks.transfer import TransferTraining

ITERATIONS = ("first iteration", "second iteration")


def test_an_import_is_counted_without_the_interpreter() -> None:
    answer = measure({"interpreter": Program("-c", "pass"), "import json": Program("-c", "import json")}, 3, warm_up=0)
    assert answer["seconds"]["interpreter"] > 0
    assert answer["seconds"]["import json"] < answer["seconds"]["interpreter"] + 0.5
    assert answer["parts"] == {}


def test_a_program_tells_its_parts() -> None:
    program = Program("-c", "print('hello'); print('{\"first\": 1.0, \"second\": 2.0}')")
    answer = measure({"interpreter": Program("-c", "pass"), "told": program}, 2, warm_up=1)
    assert answer["parts"] == {"told": {"first": 1.0, "second": 2.0}}
    assert len(program.parts["first"]) == 3


def test_a_program_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        Program("-c", "raise SystemExit('no such thing')")()


def test_ray_is_started_on_request_only() -> None:
    assert [name for name in programs(with_ray=True) if name not in programs(with_ray=False)] == [
        "Ray",
        "Ray run, two workers",
    ]


def test_parts_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow one another and leave nothing out."""
    iterations: list[float] = []
    step = TransferTraining.step

    def timed(task: TransferTraining, number: int) -> Metrics:
        started = time.perf_counter()
        metrics = step(task, number)
        iterations.append(time.perf_counter() - started)
        return metrics

    monkeypatch.setattr(TransferTraining, "step", timed)
    started = time.perf_counter()
    parts = startup_programs.iteration()
    whole = time.perf_counter() - started
    assert list(parts) == ["import torch", "other imports", "networks and engines", *ITERATIONS]
    assert sum(parts.values()) == pytest.approx(whole, rel=0.02)
    assert [parts[name] for name in ITERATIONS] == pytest.approx(iterations, rel=0.02, abs=0.01)
