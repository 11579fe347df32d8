"""What a log tells of a run: its plan, and lines now and then."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from zskt_dist.launch.progress import ProgressLog, announce, duration, watching


def _state(iteration: int, reported: int | None = None, evaluated: int = 0, **metrics: float) -> dict[str, Any]:
    told = metrics if reported is None else {"iteration": reported, "time": 0, **metrics}
    return {"phase": "student", "iteration": iteration, "iterations": 1000, "metrics": told, "evaluated": evaluated}


def test_the_first_line_comes_with_the_time_left_and_then_one_each_half_minute() -> None:
    log = ProgressLog()
    assert log.line(_state(10), now=100) is None, "nothing has been reported"
    assert log.line(_state(50, 50, kl=2.5), now=120) is None, "how fast it is shows from here on"
    assert log.line(_state(60, 50, kl=2.5), now=122) is None, "too early to tell"
    # 50 iterations in 10 s: 900 more take 180 s.
    expected = "student 100/1000 (10.0%): kl 2  30 s elapsed, about 3 min left"
    assert log.line(_state(100, 100, kl=2.0), now=130) == expected
    assert log.line(_state(150, 150, kl=1.5), now=140) is None, "the last line is not half a minute old"
    assert log.line(_state(200, 200, kl=1.0), now=159) is None
    # 160 iterations in 40 s since the first report: 790 more take 197.5 s.
    assert log.line(_state(210, 200, kl=1.0), now=160) == (
        "student 200/1000 (20.0%): kl 1  1 min elapsed, about 3 min left"
    ), "it tells the metrics there are"
    assert log.line(_state(240, 200, kl=1.0), now=200) is None, "and the same ones once"
    assert log.line(_state(250, 250, kl=0.5), now=201) is not None


def test_each_evaluation_has_a_line_and_counts_as_one() -> None:
    log = ProgressLog()
    first = log.line(_state(50, 50, 50, accuracy=0.5, kl=1.0), now=10)
    assert first == "student 50/1000 (5.0%): accuracy 0.5000  kl 1  0 s elapsed"
    # 50 iterations in 5 s: 900 more take 90 s.
    second = log.line(_state(100, 100, 100, accuracy=0.75, kl=0.5), now=15)
    assert second == "student 100/1000 (10.0%): accuracy 0.7500  kl 0.5  5 s elapsed, about 2 min left"
    assert log.line(_state(150, 150, 100, accuracy=0.75, kl=0.4), now=20) is None
    assert log.line(_state(200, 200, 200, accuracy=0.76, kl=0.4), now=25) is not None
    last = log.line(_state(1000, 1000, 1000, accuracy=1.0, kl=0.25), now=100)
    assert last == "student 1000/1000 (100.0%): accuracy 1.0000  kl 0.25  2 min elapsed"


def test_what_has_no_metrics_tells_how_far_it_is() -> None:
    log = ProgressLog()
    assert log.line(_state(0, 0), now=0) is None
    assert log.line(_state(250, 250), now=5) == "student 250/1000 (25.0%): 5 s elapsed, about 15 s left"


def test_each_phase_has_its_own_time() -> None:
    log = ProgressLog()
    log.line(_state(50, 50, kl=2.5) | {"phase": "teacher"}, now=0)
    line = log.line(_state(100, 100, kl=2.5) | {"phase": "teacher"}, now=5)
    assert line == "teacher 100/1000 (10.0%): kl 2.5  5 s elapsed, about 2 min left"
    assert log.line(_state(50, 50, kl=2.5), now=200) is None
    line = log.line(_state(100, 100, kl=2.5), now=205)
    assert line == "student 100/1000 (10.0%): kl 2.5  5 s elapsed, about 2 min left"


def test_workers_that_went_back_to_a_checkpoint_are_timed_anew() -> None:
    log = ProgressLog()
    log.line(_state(500, 500, kl=1.0), now=0)
    assert log.line(_state(300, 300, kl=1.0), now=100) is None
    # 100 iterations in 10 s: 600 more take a minute.
    assert log.line(_state(400, 400, kl=1.0), now=110) == (
        "student 400/1000 (40.0%): kl 1  2 min elapsed, about 1 min left"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (9960, "2 h 46 min"),
        (100_000, "27 h 47 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


PLAN = [
    ("run directory", "/runs/[a]/b"),
    ("data", "digits, 1x8x8"),
    ("normalised", "somehow"),
    ("teacher", "wrn-40-2, from x.pt"),
    ("student", "wrn-16-1"),
    ("transfer", "N = 7"),
    ("optimizer", "Adam"),
    ("launch", "local, 2 workers"),
]


def _printed(command: str, plan: list[tuple[str, str]], terminal: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=30)
    announce(command, plan, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_log_begins_with_the_plan_in_short() -> None:
    assert _printed("train", PLAN) == [
        "task               train: N = 7",
        "teacher -> student wrn-40-2, from x.pt -> wrn-16-1",
        "data               digits, 1x8x8",
        "launch             local, 2 workers",
        "run directory      /runs/[a]/b",
    ]
    assert _printed("pretrain", [PLAN[3], PLAN[6]]) == [
        "task               pretrain: Adam",
        "teacher            " + PLAN[3][1],
    ]
    assert _printed("evaluate", PLAN[:1]) == ["task               evaluate", "run directory      /runs/[a]/b"]
    assert _printed("train", PLAN, terminal=True) == [], "a terminal has the bar"


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_shows_lines_in_a_log_and_a_bar_on_a_terminal(tmp_path: Path, terminal: bool) -> None:
    path, console = tmp_path / "progress.json", Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with watching(path, console):
        path.write_text(json.dumps(_state(1000, 1000, 1000, accuracy=0.5)))
        time.sleep(0.1)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert ("student 1000/1000 (100.0%): accuracy 0.5000" in printed) == (not terminal)
    assert ("━" in printed) == terminal
    assert "1000/1000" in printed
    assert not path.exists()


def test_what_measures_nothing_is_counted_each_half_minute() -> None:
    log = ProgressLog()
    state = {"phase": "yardstick", "iterations": 36, "metrics": {}, "evaluated": 0}
    lines = [log.line(state | {"iteration": done}, 100.0 + seconds) for done, seconds in ((0, 0), (6, 20), (9, 30))]
    assert lines == [None, None, "yardstick 9/36 (25.0%): 30 s elapsed, about 2 min left"]
    assert log.line(state | {"iteration": 12}, 140.0) is None
    assert log.line(state | {"iteration": 18}, 160.0) == "yardstick 18/36 (50.0%): 1 min elapsed, about 1 min left"


def test_after_half_a_minute_of_silence_there_is_a_sign_of_life() -> None:
    log = ProgressLog(began=100.0)
    lines = [log.line_or_sign(None, now) for now in (129.9, 130.0, 140.0, 160.0)]
    starting = "no iteration is known here yet: {} elapsed"
    assert lines == [None, starting.format("30 s"), None, starting.format("1 min")]
    # No metrics yet: 4 iterations in 20 s, 994 more take 4970 s.
    assert log.line_or_sign(_state(2), 170.0) is None
    assert log.line_or_sign(_state(6), 190.0) == "student 6/1000 (0.6%): 20 s elapsed, about 1 h 23 min left"
    # A line of metrics counts, and what was reported is not repeated.
    assert log.line_or_sign(_state(50, 50, 50, kl=1.0), 200.0) is not None
    assert log.line_or_sign(_state(51, 50, 50, kl=1.0), 229.0) is None
    assert log.line_or_sign(_state(52, 50, 50, kl=1.0), 230.0) == (
        "student 52/1000 (5.2%): 1 min elapsed, about 19 min left"
    )
    assert log.line_or_sign(_state(1000, 1000, 1000, kl=1.0), 240.0) is not None
    last = log.line_or_sign(_state(1000, 1000, 1000, kl=1.0), 270.0)
    assert last == "student 1000/1000 (100.0%): finishing, 2 min elapsed"


def test_a_yardstick_that_is_slow_has_one_line_each_half_minute() -> None:
    log, state = ProgressLog(), {"phase": "yardstick", "iterations": 100, "metrics": {}, "evaluated": 0}
    lines = [log.line_or_sign(state | {"iteration": second // 2}, float(second)) for second in range(1, 100)]
    assert [second for second, line in enumerate(lines, start=1) if line] == [30, 60, 90]
