"""Networks whose answers are unusual: each trains as its plain twin does, or is refused in one line."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch

from tests.support import odd_networks
from tests.support.configs import tiny_config, tiny_overrides
from tests.support.jobs import evaluate_in, train_in
from zskt_dist.commands import train
from zskt_dist.errors import UserError
from zskt_dist.export import __main__ as export
from zskt_dist.launch.preflight import Preflight, describe
from zskt_dist.models import LeNet
from zskt_dist.networks.weights import read_weights
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.training.job import Job

MINE = "tests.support.odd_networks"
NO_DATA = ("data.name=none", "data.image_shape=[1,8,8]", "data.mean=[0.5]", "data.std=[0.5]")
SETTINGS = ("loss.beta=0", "student.arch=tests.support.odd_networks:Usual")


def _weights(folder: Path, name: str = "Usual") -> str:
    """A teacher with answers of some size, whatever its last layer does with them."""
    torch.manual_seed(0)
    network = getattr(odd_networks, name)()
    torch.nn.init.normal_(network.head.weight)
    network.norm.running_mean.normal_(0, 0.2)
    torch.save(network.state_dict(), folder / f"{name}.pt")
    return f"teacher.checkpoint={folder / f'{name}.pt'}"


def _given(folder: Path, teacher: str, *overrides: str) -> list[str]:
    kind = "OneLogit" if teacher == "OneLogit" else "Usual"
    return [_weights(folder, kind), f"teacher.arch={MINE}:{teacher}", *SETTINGS, f"name={teacher}", *overrides]


def _trained(folder: Path, teacher: str, *overrides: str) -> RunDirectory:
    return train_in("train", tiny_config(folder, *_given(folder, teacher, *overrides)))


def _result(run: RunDirectory) -> dict[str, object]:
    content: dict[str, object] = json.loads((run.path / "result.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(
    ("teacher", "overrides", "answers"),
    [
        ("EndsInSoftmax", (), "probabilities, of which the logarithms are taken"),
        ("EndsInLogSoftmax", (), "log-probabilities, which serve as logits"),
        ("TwoAnswers", ("teacher.output=1",), "logits"),
        ("OtherNames", ("teacher.output=pred",), "logits"),
        ("WantsLabelsInTraining", (), "logits"),
        ("Squeezes", (), "logits; a single image is asked for twice, as it fails on one alone"),
    ],
)
def test_a_teacher_is_read_as_what_it_is(
    teacher: str, overrides: tuple[str, ...], answers: str, tmp_path: Path
) -> None:
    expected, found = (_result(_trained(tmp_path, each, *more)) for each, more in (("Usual", ()), (teacher, overrides)))
    for role in ("teacher", "student"):
        accuracy = "accuracy" if role == "teacher" else "accuracy_last"
        assert found[role][accuracy] == pytest.approx(expected[role][accuracy], abs=2 / 360)  # type: ignore[index]
    assert found["teacher"]["answers"] == answers  # type: ignore[index]
    plan = describe(_checked(tmp_path, teacher, *overrides))
    assert [text for topic, text in plan if topic == "answers"] == [f"teacher: {answers}", "student: logits"]


def test_a_teacher_that_answers_by_chance_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = _result(_trained(tmp_path, "Draws"))
    assert found["teacher"]["answers"] == "logits; another answer to the same images each time"  # type: ignore[index]
    assert "the teacher gives another answer to the same images each time" in caplog.text


def test_another_output_makes_another_run_and_another_teacher(tmp_path: Path) -> None:
    given = _given(tmp_path, "TwoAnswers", "name=null", "evaluation.every=0")
    plans = [Job.plan("train", tiny_config(tmp_path, *given, *output)) for output in ((), ("teacher.output=1",))]
    assert plans[0].goal.run != plans[1].goal.run
    pretraining = [f"teacher.arch={MINE}:TwoAnswers", "student.arch=lenet"]
    runs = {
        Job.plan("pretrain", tiny_config(tmp_path, *pretraining, f"teacher.output={output}")).goal.run
        for output in (0, 1)
    }
    assert len(runs) == 2


def _checked(folder: Path, teacher: str, *overrides: str) -> Preflight:
    plan = Preflight(Job.plan("train", tiny_config(folder, *_given(folder, teacher, *overrides))))
    assert not list(plan.problems())
    return plan


@pytest.mark.parametrize(
    ("teacher", "overrides", "words"),
    [
        ("NoGradient", (), "teacher.arch='tests.support.odd_networks:NoGradient': no gradient reaches the images"),
        ("ThroughNumpy", (), "they end in ThroughNumpy.forward, after head; take that out"),
        ("TwoAnswers", (), "of which 0 and 1 may be the logits; name them: teacher.output=1"),
        ("TwoAnswers", ("teacher.output=2",), "teacher.output='2': "),
        ("OtherNames", (), "of which scores and pred may be the logits; name them: teacher.output=pred"),
        ("OtherNames", ("teacher.output=logits",), "none is called 'logits'; name them: teacher.output=pred"),
        ("Usual", ("student.arch=lenet", "student.output=logits"), "student.output='logits': lenet returns logits and"),
        ("EndsInSigmoid", (), "a probability of its own for each class"),
        ("OneLogit", (*NO_DATA, "data.num_classes=1"), "a network of one class tells nothing apart"),
        ("OneLogit", (*NO_DATA, "data.num_classes=2"), "have it return one for each of the two"),
        ("Usual", ("student.arch=tests.support.odd_networks:NoGradient",), "student.arch="),
        ("Usual", ("student.arch=tests.support.odd_networks:TwoAnswers",), "name them: student.output=1"),
        ("Usual", ("student.arch=tests.support.odd_networks:WantsLabelsInTraining",), "student.arch="),
    ],
)
def test_what_cannot_be_read_is_one_line(
    teacher: str, overrides: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(tiny_overrides(tmp_path, *_given(tmp_path, teacher, *overrides))) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert words in printed
    assert not (tmp_path / "runs").exists()


def test_a_student_that_fails_on_one_image_is_trained_evaluated_and_exported(tmp_path: Path) -> None:
    student = f"student.arch={MINE}:Squeezes"
    one = ("engine.micro_batch=1", "evaluation.batch_size=359", "evaluation.every=0", "iterations=2", student)
    run = _trained(tmp_path, "Squeezes", *one)
    config = run.read_config()
    assert config is not None
    evaluate_in(run.path, config)
    result = _result(run)
    assert str(result["student"]["answers"]).startswith("logits; a single image")  # type: ignore[index]
    assert 0 < result["student"]["accuracy_last"] < 1  # type: ignore[index]
    assert export.main([str(run.path), student, f"teacher.arch={config.teacher.arch}", "--to", "pt2"]) == 0
    network = torch.export.load(run.path / "export" / "student.pt2").module()
    assert [network(torch.zeros(size, 1, 8, 8)).shape[0] for size in (1, 2, 5)] == [1, 2, 5]


def test_answers_that_are_not_finite_are_those_of_the_teacher(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the teacher's answers are not finite .* method=inversion"):
        _trained(tmp_path, "AnswersInfinity", "iterations=60", "tracking.log_every=1")


@pytest.mark.parametrize("method", ["belief_matching", "inversion"])
def test_a_student_that_diverges_by_itself_is_told_as_that(method: str, tmp_path: Path) -> None:
    """Inversion's images do not reach the teacher's limit, so it is not the teacher's doing there."""
    teacher = "AnswersInfinity" if method == "inversion" else "Usual"
    with pytest.raises(UserError, match=r"^student diverged: .*Lower the learning rate"):
        _trained(tmp_path, teacher, f"method={method}", "optimizer.student_lr=1e30", "tracking.log_every=1")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([*range(1, 10), 0], r"chance is 10.0%; with its classes in another order it would be right on [6-9]\d"),
        (None, r"chance is 10.0%: look at its normalisation"),
    ],
    ids=["another order", "untrained"],
)
def test_a_teacher_at_chance_is_doubted_before_training(
    order: list[int] | None, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(tmp_path, "supervised.iterations=500", "name=teacher")
    teacher = train_in("pretrain", config).weights("teacher")
    torch.manual_seed(0)
    network = LeNet(image_size=(8, 8))
    if order is not None:
        network.load_state_dict(read_weights(teacher, "teacher"))
        last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.weight.copy_(last.weight[order])
            last.bias.copy_(last.bias[order])
    torch.save(network.state_dict(), tmp_path / "t.pt")
    with caplog.at_level(logging.WARNING):
        train_in("train", tiny_config(tmp_path, f"teacher.checkpoint={tmp_path / 't.pt'}", "iterations=2"))
    said = [record.getMessage() for record in caplog.records if "right on" in record.getMessage()]
    assert len(said) == 1
    assert re.search(words, said[0])
