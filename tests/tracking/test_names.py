"""MLflow's pages group metrics by what stands before the slash; each of ours has a group and a name of its own."""

import re

import pytest

from tests.support.commands import REPOSITORY
from zskt_dist.tracking.mlflow.names import grouped

NAMES = {
    "accuracy": "test/accuracy",
    "agreement": "test/agreement",
    "teacher_accuracy": "test/teacher_accuracy",
    "ece_student": "test/ece_student",
    "mte": "test/mte",
    "accuracy_std": "test/accuracy_std",
    "train_accuracy": "train/accuracy",
    "yardstick_agreement": "yardstick/agreement",
    "label_free_score": "label_free/score",
    "held_out_agreement": "label_free/held_out_agreement",
    "held_out_kl": "label_free/held_out_kl",
    "noise_agreement": "label_free/noise_agreement",
    "estimate_noise_agreement": "estimate/noise_agreement",
    "estimate_yardstick_agreement_std": "estimate/yardstick_agreement_std",
    "loss": "losses/loss",
    "kl": "losses/kl",
    "attention": "losses/attention",
    "cross_entropy": "losses/cross_entropy",
    "generator_loss": "losses/generator_loss",
    "generator_teacher_entropy": "losses/generator_teacher_entropy",
    "synthesis_loss": "losses/synthesis_loss",
    "statistics_gap": "losses/statistics_gap",
    "gradient_norm": "gradients/gradient_norm",
    "generator_gradient_norm": "gradients/generator_gradient_norm",
    "generator_learning_rate": "learning_rates/generator_learning_rate",
    "teacher_confidence": "pseudo_images/teacher_confidence",
    "student_class_entropy": "pseudo_images/student_class_entropy",
    "synthesis_agreement": "pseudo_images/synthesis_agreement",
    "label_hits": "pseudo_images/label_hits",
    "iterations_per_second": "speed/iterations_per_second",
    "score": "sweep/score",
    "best_accuracy": "sweep/best_accuracy",
    "trials": "sweep/trials",
    "something_new": "something_new",
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_grouped(name: str, expected: str) -> None:
    assert grouped(name) == expected


def test_no_two_have_one_name_and_no_group_is_called_like_a_metric() -> None:
    """In a store of files a group is a folder, and a metric of an earlier version a file beside it."""
    assert len(set(NAMES.values())) == len(NAMES)
    assert not {name.split("/")[0] for name in NAMES.values() if "/" in name} & set(NAMES)


def test_the_page_lists_the_groups() -> None:
    text = (REPOSITORY / "docs" / "running.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z_]+)/` \|", text, re.MULTILINE))
    assert listed == {name.split("/")[0] for name in NAMES.values() if "/" in name}
