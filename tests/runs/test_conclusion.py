"""What a run comes to, in sentences."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from zskt_dist.runs.conclusion import EXPERIENCE, conclusion, next_steps

MEASURED = Path(__file__).parents[2] / "docs/results/yardstick/yardstick.json"
TEACHER: dict[str, Any] = {"arch": "wrn-16-2", "params": 690_000, "multiply_adds": 6_000_000, "accuracy": 0.99}
STUDENT: dict[str, Any] = {
    **{"arch": "wrn-10-1", "params": 69_000, "multiply_adds": 5_000_000},
    **{"accuracy_last": None, "agreement": None},
}
YARDSTICK = {"agreement": 0.875, "low": 0.843, "high": 0.901, "images": 512, "sha256": "a"}
RESULT: dict[str, Any] = {
    **{"teacher": TEACHER, "student": STUDENT, "yardstick": YARDSTICK, "iterations": 100, "name": "run"},
    **{"dataset": "none", "seed_images": None, "command": "train"},
}


def test_what_we_know_of_the_yardstick_is_what_was_measured() -> None:
    measured = json.loads(MEASURED.read_text())["measured"]
    above = 1.01
    for each in EXPERIENCE:
        real = [one["agreement"] for one in measured if each.at_least <= one["yardstick_agreement"] < above]
        assert (each.students, each.low, each.high) == (len(real), round(min(real), 2), round(max(real), 2))
        above = each.at_least
    assert above == 0


def test_a_run_without_test_images() -> None:
    assert conclusion(RESULT) == [
        "The student (wrn-10-1) has 10 times fewer parameters and 1.2 times fewer multiply-adds per image, compared with "
        "its teacher (wrn-16-2).",
        "It predicts the same class as the teacher on 87.5 % (95 % interval 84.3 to 90.1) of 512 images made from the "
        "teacher alone, the yardstick.",
        "The 51 students that we measured at 85 to 90 % there agreed with their teachers on 85 to 97 % of real images "
        "(docs/estimates.md).",
        "How often it is right was not measured: there were no test images.",
    ]


def test_with_test_images_latencies_and_images_of_the_users() -> None:
    student = STUDENT | {"accuracy_last": 0.9, "agreement": 0.91, "params": 1_380_000}
    result = RESULT | {"student": student, "yardstick": None, "dataset": "digits", "seed_images": {"images": 1000}}
    first, second, third = conclusion(result, {"student": {"1": 0.5, "32": 4.0}, "teacher": {"1": 1.25, "32": 12.0}})
    assert "2.0 times as many parameters" in first
    assert "1 image takes 0.5 ms instead of 1.25. On this CPU 32 images take 4 ms instead of 12." in first
    assert "not data-free: it also learnt from 1,000 images" in second
    assert third == (
        "It is right on 90.00 % of the test images of digits, the teacher on 99.00 %; the two agree on 91.00 %."
    )


def test_what_data_free_students_taught_us_is_not_said_of_others() -> None:
    assert any("students that we measured" in sentence for sentence in conclusion(RESULT))
    assert not any("students that we measured" in sentence for sentence in conclusion(RESULT | {"command": "distill"}))


def test_results_of_earlier_versions_and_of_other_commands() -> None:
    old = {role: {k: v for k, v in RESULT[role].items() if k != "multiply_adds"} for role in ("teacher", "student")}
    assert "10 times fewer parameters, compared" in conclusion(RESULT | old)[0]
    assert conclusion(RESULT | {"teacher": None})[0].startswith("It predicts")
    pretrained = RESULT | {"student": None, "dataset": "digits"}
    assert conclusion(pretrained) == ["The teacher (wrn-16-2) is right on 99.00 % of the test images of digits."]
    assert next_steps(pretrained, "run") == []
    assert conclusion(pretrained | {"teacher": TEACHER | {"accuracy": None}}) == []


def test_seeds_have_their_deviation() -> None:
    student = STUDENT | {"accuracy_last": 0.9, "accuracy_last_std": 0.01}
    several = RESULT | {"student": student, "seeds": [0, 1]}
    assert conclusion(several)[-1].startswith("It is right on 90.00 ± 1.00 % of the test images")
    assert conclusion(RESULT | {"student": student, "teacher": None})[-1].startswith(
        "The student (wrn-10-1), which learnt without a teacher, is right on 90.00"
    )


@pytest.mark.parametrize("agreement", [0.0, 0.69, 0.7, 1.0])
def test_the_next_step_depends_on_how_alike_they_are(agreement: float) -> None:
    (_, first), (_, second) = next_steps(RESULT | {"yardstick": YARDSTICK | {"agreement": agreement}}, "my runs/run")
    assert first == ("your command with iterations=200 name=run-longer" if agreement < 0.7 else "zskt export 'my runs/run'")
    assert shlex.split(second)[2] == "my runs/run"


def test_who_has_measured_is_not_asked_for_images() -> None:
    steps = next_steps(RESULT | {"student": STUDENT | {"accuracy_last": 0.9}}, "run")
    assert [command for _, command in steps] == ["zskt export run", "zskt evaluate run"]
    assert "data.root=FOLDER" in next_steps(RESULT, "run")[1][1]
