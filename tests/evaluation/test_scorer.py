"""The one count of accuracy and agreement, against hand arithmetic, and the same for two workers."""

import math
import re

import pytest
import torch

from tests.support.distributed import Ranks
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.scorer import Score, Scorer, doubt

ALONE = World(torch.device("cpu"))
LOGITS = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.7, 0.2, 0.1]]).log()
TEACHER = torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.2, 0.2], [0.1, 0.6, 0.3], [0.7, 0.2, 0.1]]).log()
LABELS = torch.tensor([0, 0, 1, 2])


def _score(world: World) -> tuple[Score, Score]:
    """By the labels and by the teacher; of two workers the second has a single image, in batches of two."""
    mine = slice(None) if world.size == 1 else (slice(0, 3), slice(3, 4))[world.rank]
    by_label, by_teacher = Scorer(world, 3), Scorer(world)
    for start in (0, 2):
        part = slice(start, start + 2)
        logits, teacher, labels = (each[mine][part] for each in (LOGITS, TEACHER, LABELS))
        by_label.add(logits, labels)
        by_teacher.add(logits, teacher)
    return by_label.score(), by_teacher.score()


def test_every_fraction_by_hand() -> None:
    by_label, by_teacher = _score(ALONE)
    assert (by_label.images, by_label.accuracy) == (4, 0.5)
    assert by_label.confusion is not None
    assert by_label.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert by_label.class_accuracies == [0.5, 1.0, 0.0]
    assert by_label.confidence == pytest.approx((0.8 + 0.5 + 0.6 + 0.7) / 4)
    # Each is alone in its bin of 1/15.
    assert by_label.calibration.ece == pytest.approx((0.2 + 0.5 + 0.4 + 0.7) / 4)
    assert (by_teacher.images, by_teacher.accuracy, by_teacher.confusion) == (4, 0.75, None)
    first = 0.5 * math.log(0.5 / 0.8) + 2 * 0.25 * math.log(0.25 / 0.1)
    second = 0.6 * math.log(0.6 / 0.2) + 0.2 * math.log(0.2 / 0.5) + 0.2 * math.log(0.2 / 0.3)
    assert by_teacher.kl == pytest.approx((first + second) / 4, rel=1e-6)


def test_a_class_without_images_has_no_hits() -> None:
    assert Scorer(ALONE, 3).add(LOGITS[:1], LABELS[:1]).score().class_accuracies == [1.0, 0.0, 0.0]


def _of(confusion: list[list[int]]) -> Score:
    """A score with so many images by right class and predicted class."""
    scorer = Scorer(ALONE, len(confusion))
    for right, row in enumerate(confusion):
        for predicted, count in enumerate(row):
            scorer.add(torch.eye(len(confusion))[predicted].expand(count, -1), torch.full((count,), right))
    return scorer.score()


@pytest.mark.parametrize(
    ("confusion", "words"),
    [
        ([[3, 2], [2, 3]], None),  # 60 %, of two classes
        ([[54, 46], [46, 54]], "right on 54.0% of the test images, and chance is 50.0%: look at its normalisation"),
        ([[0, 9, 1], [0, 0, 10], [10, 0, 0]], "in another order it would be right on 96.7%"),
        ([[10, 0, 0], [0, 0, 10], [0, 10, 0]], "right on 33.3% .*; with its classes in another order .* 100.0%"),
        ([[6, 2, 2], [2, 6, 2], [2, 2, 6]], None),
        ([[0, 4, 0], [0, 0, 4], [4, 0, 0]], "right on 0.0% .*: look at"),  # too few images to say more
        ([[0, 9, 9], [0, 0, 0], [9, 0, 0]], "right on 0.0% .*: look at"),  # no order: two classes are labelled alike
        ([[10, 0, 0], [10, 0, 0], [10, 0, 0]], "right on 33.3% .*: look at"),
    ],
)
def test_a_teacher_at_chance_is_doubted(confusion: list[list[int]], words: str | None) -> None:
    found = doubt(_of(confusion))
    assert found is None if words is None else re.search(words, found or "")


def test_the_order_of_the_classes_is_said() -> None:
    """Of its first class the images are labelled c, of its second a, of its third b."""
    score = _of([[0, 9, 1], [0, 0, 10], [10, 0, 0]])
    assert (doubt(score) or "").endswith("its classes 0, 1, … are labelled 2,0,1")
    assert (doubt(score, ["a", "b", "c"]) or "").endswith("data.class_names=[c,a,b] says so")


def _plain(world: World) -> list[object]:
    scores = _score(world)
    shares = [(each.images, each.accuracy, each.confidence, each.kl, each.calibration.ece) for each in scores]
    return [*shares, scores[0].confusion.tolist() if scores[0].confusion is not None else None]


def test_two_workers_count_what_one_does(two_ranks: Ranks) -> None:
    alone, (first, second) = _plain(ALONE), two_ranks.run(_plain)
    assert first == second
    assert first[-1] == alone[-1]
    for one, many in zip(alone[:-1], first[:-1], strict=True):
        assert many == pytest.approx(one, rel=1e-12)


def test_asking_twice_gives_the_same() -> None:
    scorer = Scorer(ALONE).add(LOGITS, LABELS)
    assert scorer.score().images == scorer.score().images == 4
    assert scorer.add(LOGITS, LABELS).score().images == 8
