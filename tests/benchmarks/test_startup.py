import pytest

from benchmarks import startup_programs
from benchmarks.startup import Program, measure, programs


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


def test_parts_of_one_process() -> None:
    parts = startup_programs.iteration()
    assert list(parts)[-2:] == ["first iteration", "second iteration"]
    assert all(seconds >= 0 for seconds in parts.values())
