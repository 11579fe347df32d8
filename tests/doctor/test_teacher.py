"""`zskt doctor --teacher`: what a network is, before anybody trains with it."""

import json
from pathlib import Path

import pytest
import torch

from tests.support.odd_networks import Usual
from zskt_dist.doctor import __main__ as doctor
from zskt_dist.doctor.findings import examine

MINE = "tests.support.odd_networks"
IMAGES = ["data.image_shape=[1,8,8]", "data.num_classes=10", "data.mean=[0.3]", "data.std=[0.4]"]


def test_a_network_and_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(Usual().state_dict(), tmp_path / "t.pt")
    written = tmp_path / "found.json"
    given = ["--teacher", f"{MINE}:EndsInSoftmax", "--checkpoint", str(tmp_path / "t.pt"), "--json", str(written)]
    assert doctor.main([*given, *IMAGES]) == 0
    found = json.loads(written.read_text(encoding="utf-8"))
    parameters = 6 * 9 + 6 + 6 + 24 * 10 + 10
    assert found["teacher"] == f"{MINE}:EndsInSoftmax, {parameters} parameters, weights of {tmp_path / 't.pt'}"
    assert found["images"] == "1x8x8, 10 classes, mean [0.3], std [0.4]"
    assert found["answers"] == "probabilities, of which the logarithms are taken; a gradient reaches the images"
    assert found["method"] == "inversion: 1 layers have running statistics"
    assert "answers  probabilities" in capsys.readouterr().out


def test_what_only_the_name_says_is_called_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--teacher", "torchvision:squeezenet1_1"]) == 0
    printed = capsys.readouterr().out
    assert "untrained: no --checkpoint" in printed
    assert "guessed from the name: data.image_shape, data.num_classes, data.mean" in printed
    assert "belief_matching: no layer has running statistics" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teacher", f"{MINE}:NoGradient", *IMAGES], "no gradient reaches the images"),
        (["--teacher", f"{MINE}:TwoAnswers", *IMAGES], "name them: teacher.output=1"),
        (["--teacher", f"{MINE}:Usual", "--checkpoint", "no.pt", *IMAGES], "teacher.checkpoint='no.pt'"),
        (["--teacher", f"{MINE}:Usual", "--checkpoint", "none", *IMAGES], "draws conv.weight at random, and so is not"),
        (["--teacher", "timm:resnet81"], "timm has no network 'resnet81'; did you mean"),
        (["--teacher", "torchvision:resnet19"], "torchvision has no classifier 'resnet19'; did you mean"),
        (["--teacher", f"{MINE}:Usual"], "data.image_shape=None"),
        (["--teacher", "timm:resnet81", *IMAGES], "timm has no network 'resnet81'; did you mean"),
    ],
)
def test_what_does_not_work_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert printed.out == ""


def test_answers_by_chance_are_a_warning(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert doctor.main(["--teacher", f"{MINE}:Draws", *IMAGES]) == 0
    assert "answers  logits; another answer to the same images each time; a gradient" in capsys.readouterr().out
    assert caplog.messages[0].startswith("the teacher gives another answer to the same images each time")


def test_a_network_that_is_not_looked_at_is_said() -> None:
    first, *_ = examine(None, [f"teacher.arch={MINE}:Usual", "teacher.checkpoint=t.pt"], [])
    assert first.advice == f"networks and their weights are looked at with --teacher {MINE}:Usual alone"
    first, *_ = examine(None, ["device=cpu"], [])
    assert first.advice is None


def test_weights_without_a_network_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--checkpoint", "t.pt"])
    assert caught.value.code == 2
    assert "--teacher NET" in capsys.readouterr().err
