"""`zskt_dist.transfer(method="inversion")`: the normalisation it takes, its checkpoints, and what it refuses."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zskt_dist
from tests.support.transfers import assert_equal, state_of
from zskt_dist.errors import ConfigError
from zskt_dist.evaluation import yardstick
from zskt_dist.evaluation.yardstick import Recipe

FEW = {"inversion.rounds": 2, "inversion.images": 4, "inversion.steps": 2, "inversion.warm_up": 1}
QUIET: dict[str, Any] = {"generator.channels": (8, 4), "generator.z_dim": 5, "evaluation.yardstick": False}
SMALL = QUIET | FEW


def _pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    teacher = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    return teacher, nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def _transfer(teacher: nn.Module, student: nn.Module, **changes: Any) -> Any:
    settings = {"input_shape": (1, 8, 8), "method": "inversion", "mean": [0.4], "std": [0.2], "iterations": 6}
    quiet = {"batch_size": 8, "log_every": 2, "device": "cpu", "progress": False, "config": SMALL}
    return zskt_dist.transfer(teacher, student, **settings | quiet | changes)


def test_the_student_is_trained_and_the_teacher_left_as_it_was() -> None:
    teacher, student = _pair()
    before, untrained = state_of(teacher), state_of(student)
    result = _transfer(teacher, student)
    assert_equal(state_of(teacher), before)
    assert teacher.training
    assert not torch.equal(untrained["1.weight"], student.state_dict()["1.weight"])
    assert [row["iteration"] for row in result.history] == [2, 4, 6]
    assert {"kl", "statistics_gap", "label_loss"} <= result.history[-1].keys()
    assert result.settings["method"] == "inversion"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())


@pytest.mark.parametrize(
    ("normalising", "given", "method"),
    [
        (True, {}, "inversion"),
        (False, {}, "belief_matching"),
        (True, {"beta": 0}, "belief_matching"),
        (True, {"config": QUIET | {"loss": {"temperature": 2.0}}}, "belief_matching"),
        (False, {"config": SMALL}, "inversion"),
    ],
)
def test_the_teacher_and_the_arguments_decide_where_nobody_says_a_method(
    normalising: bool, given: dict[str, Any], method: str
) -> None:
    teacher, student = _pair()
    if not normalising:
        teacher[1] = nn.Identity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a teacher without statistics
        result = _transfer(teacher, student, **{"method": None, "config": QUIET} | given)
    assert result.settings["method"] == method


def test_algorithm_1_has_a_yardstick_where_the_normalisation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Recipe(images=8, batch=4, parts=2, steps=1, warm_up=1, z_dim=4, channels=(8, 4))
    monkeypatch.setattr(yardstick.find_or_make, "__defaults__", (*yardstick.find_or_make.__defaults__[:-1], short))
    loud = {"method": "belief_matching", "config": {**QUIET, "evaluation.yardstick": True}}
    assert "yardstick_agreement" in _transfer(*_pair(), **loud).scores
    assert "yardstick_agreement" not in _transfer(*_pair(), mean=None, std=None, **loud).scores


def test_the_same_call_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    whole, stopped = _pair()[1], _pair()[1]
    teacher = _pair()[0]
    often = {"checkpoint_dir": tmp_path, "config": SMALL | {"checkpoint.every": 2}}
    _transfer(teacher, whole, checkpoint_dir=tmp_path / "whole", config=SMALL | {"checkpoint.every": 2})
    first = _transfer(teacher, stopped, **often, on_progress=lambda progress: progress.iteration < 4)
    assert first.stopped_early
    again = _pair()[1]
    result = _transfer(teacher, again, **often)
    assert result.iterations == 6
    assert_equal(state_of(again), state_of(whole))


def test_a_normalisation_that_nobody_states_is_guessed_aloud() -> None:
    teacher, student = _pair()
    with pytest.warns(UserWarning, match=r"inputs lie between -2 and 2; give mean and std"):
        result = _transfer(teacher, student, mean=None, std=None)
    assert result.settings["data.mean"] == [0.5]
    teacher.pretrained_cfg = {"mean": (0.3,), "std": (0.1,)}  # as timm's
    assert _transfer(teacher, _pair()[1], mean=None, std=None).settings["data.std"] == [0.1]
    of_one = _transfer(teacher, _pair()[1], mean=0.25, std=None).settings
    assert (of_one["data.mean"], of_one["data.std"]) == ([0.25], [0.1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.4, 0.4]}, r"mean=\[0.4, 0.4\]: expected 1 number"),
        ({"std": None}, "std=None: expected 1 number"),
        ({"std": [0.0]}, r"std=\[0.0\]: is to be above zero"),
        ({"student_steps": 5}, "student_steps=5: has no meaning with method='inversion'; leave it out"),
        ({"config": {"loss.beta": 5.0}}, "loss.beta=5.0: has no meaning with method='inversion'"),
        ({"method": "belief_matching"}, "inversion.rounds=2: has no meaning with method='belief_matching'"),
        ({"method": "belief_matching", "std": -1.0, "config": {}}, "std=-1.0: is to be above zero"),
        ({"config": {"method": "inversion"}}, "method='inversion': is also given as method='inversion'; leave one"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _transfer(*_pair(), **changes)


def test_images_of_the_user_start_the_pool_and_a_missing_folder_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "one.png")
    students = []
    for location in (None, str(tmp_path)):
        teacher, student = _pair()
        _transfer(teacher, student, config=SMALL | {"inversion.seed_images": location})
        students.append(student.state_dict()["1.weight"])
    assert not torch.equal(*students), "it learnt from the image"
    with pytest.raises(ConfigError, match=r"inversion\.seed_images=.*nowhere'.*no such file or folder"):
        _transfer(*_pair(), config=SMALL | {"inversion.seed_images": str(tmp_path / "nowhere")})
