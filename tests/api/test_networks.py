"""The caller's networks: whatever they return is read, and they go home as they came."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.nets import TinyClassifier
from tests.support.transfers import SHAPE, assert_equal, state_of, tiny_pair, tiny_transfer
from tests.support.user_networks import Answer
from zskt_dist.errors import ConfigError, UserError

Form = Callable[[Tensor, bool], Any]

FORMS: dict[str, Form] = {
    "dict": lambda logits, training: {"features": torch.zeros(len(logits), 7), "logits": logits},
    "tuple": lambda logits, training: (logits, -logits, torch.zeros(len(logits), 3, 2, 2)),
    "dataclass": lambda logits, training: Answer(None, logits),
    "extras in training": lambda logits, training: (logits, -logits) if training else logits,
}


class _Answering(TinyClassifier):
    """Returns what `form` makes of the logits, and of whether it is in training mode."""

    def __init__(self, channels: int, form: Form) -> None:
        super().__init__(channels, norm=True)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(super().forward(x), self.training)


def _answering(form: Form) -> tuple[nn.Module, nn.Module]:
    """As `tiny_pair` but for what they return."""
    torch.manual_seed(1)
    return _Answering(3, form), _Answering(2, form)


def _hooks(*networks: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for each in networks for m in each.modules())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_logits_are_found_in_what_networks_return(form: Form) -> None:
    """And in the end the student returns what it always has."""
    expected, (teacher, student) = tiny_transfer(*tiny_pair(), speed="plain"), _answering(form)
    result = tiny_transfer(teacher, student, speed="plain")
    assert_equal(state_of(student), state_of(expected.student))
    assert (result.scores, result.num_classes) == (expected.scores, 3)
    assert not _hooks(teacher, student)
    x = torch.randn(2, *SHAPE)
    assert type(student(x)) is type(form(expected.student(x), False))


@pytest.mark.parametrize("config", [{}, {"engine.teacher": "bfloat16"}], ids=["as they are", "bfloat16"])
def test_on_the_fast_paths_too(config: dict[str, Any]) -> None:
    history = tiny_transfer(*_answering(FORMS["dict"]), config).history
    expected = tiny_transfer(*tiny_pair(), config).history
    assert history[0]["kl"] == pytest.approx(expected[0]["kl"], rel=1e-4)


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (
            lambda logits, training: (torch.zeros(len(logits), 7), logits),
            "teacher returns a tuple of 0 [1, 7], 1 [1, 3]; one of them alone has to be the logits, [images, classes], "
            "or be called logits, output, out",
        ),
        (lambda logits, training: None, "teacher returns a NoneType of no tensor; "),
        (lambda logits, training: logits[:0], "teacher answers logits [0, 3] to images [1, 1, 4, 4]"),
    ],
    ids=["either", "none", "too few"],
)
def test_answers_that_cannot_be_read(form: Form, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny_transfer(*_answering(form))
    assert str(caught.value).startswith(problem)


def test_networks_that_cannot_be_trained_on() -> None:
    teacher, student = tiny_pair()
    with pytest.raises(UserError, match="share weights"):
        tiny_transfer(teacher, teacher)
    teacher.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="its weights are not finite"):
        tiny_transfer(teacher, student)


def test_layers_that_are_not_there() -> None:
    """No command lists those of a network that is no name's; and the student has no hooks left."""
    teacher, student = tiny_pair()
    with pytest.raises(ConfigError, match=r"loss\.taps\.student='act3': no such layer; did you mean 'act") as caught:
        tiny_transfer(teacher, student, {"loss.taps": {"teacher": ["act1"], "student": ["act3"]}})
    assert "wrn" not in str(caught.value)
    assert not _hooks(teacher, student)


def test_weights_that_module_attributes_hold() -> None:
    """torch.nn.utils.weight_norm keeps a computed tensor, which deepcopy refuses."""
    teacher, student = tiny_pair()
    for network in (teacher, student):
        nn.utils.weight_norm(network.conv1)
        network(torch.zeros(1, *SHAPE))
    assert tiny_transfer(teacher, student).iterations == 6
