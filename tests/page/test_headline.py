"""The sentences on top, with ratios worked out by hand."""

from typing import Any

import pytest

from zskt_dist.page.headline import headline

TEACHER = {"arch": "big", "params": 900, "accuracy": 0.95}
STUDENT = {"arch": "small", "params": 100, "accuracy_last": 0.9, "agreement": 0.92}
YARDSTICK = {"agreement": 0.875, "low": 0.85, "high": 0.9, "images": 512, "sha256": "a"}


def _of(**other: Any) -> list[str]:
    return headline({"dataset": "digits", "teacher": TEACHER, "student": STUDENT} | other)


def test_size_agreement_and_accuracy() -> None:
    assert _of(yardstick=YARDSTICK) == [
        "The student small has 9.0 times fewer parameters than its teacher big.",
        "It answers as its teacher does on 87.5 % of 512 images made from the teacher alone "
        "(95 % interval 85.0 to 90.0 %).",
        "It is right on 90.0 % of the test images of digits; its teacher is on 95.0 %.",
    ]


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ((300, 100), "and does 3.0 times less work for an image."),
        ((100, 150), "and does 1.5 times more work for an image."),
    ],
)
def test_work_is_told_where_it_is_known(work: tuple[int, int], words: str) -> None:
    teacher, student = ({**each, "multiply_adds": count} for each, count in zip((TEACHER, STUDENT), work, strict=True))
    assert _of(teacher=teacher, student=student)[0].endswith(words)


def test_what_was_not_measured_is_not_told() -> None:
    unknown = {"teacher": TEACHER | {"accuracy": None}, "student": STUDENT | {"accuracy_last": None}}
    assert _of(**unknown) == ["The student small has 9.0 times fewer parameters than its teacher big."]
    assert _of(teacher=None) == [
        "small, which learnt without a teacher, is right on 90.0 % of the test images of digits."
    ]
    assert _of(student=None) == ["The teacher big is right on 95.0 % of the test images of digits."]


def test_seeds_have_their_deviation() -> None:
    student = STUDENT | {"accuracy_last_std": 0.01}
    assert _of(student=student)[-1].startswith("It is right on 90.0 ± 1.0 % of the test images")
