"""The caller's networks: whatever they return is read, and they go home as they came."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.nets import TinyClassifier
from tests.support.transfers import SHAPE, assert_equal, state_of, tiny_pair, tiny_transfer
from tests.support.user_networks import Answer
from zskt_dist.api.networks import images_of
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.models import device_of

Form = Callable[[Tensor, bool], Any]

FORMS: dict[str, Form] = {
    "dict": lambda logits, training: {"features": torch.zeros(len(logits), 7), "logits": logits},
    "tuple": lambda logits, training: (logits, torch.zeros(len(logits), 3, 2, 2)),
    "dataclass": lambda logits, training: Answer(None, logits),
    "extras in training": lambda logits, training: {"out": logits, "aux": -logits} if training else logits,
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
            lambda logits, training: (-logits, logits),
            "teacher returns a tuple of 0 [2, 3], 1 [2, 3], of which 0 and 1 may be the logits; "
            'name them: config={"teacher.output": "1"}',
        ),
        (lambda logits, training: None, "teacher returns a NoneType of no tensor; "),
        (lambda logits, training: logits[:0], "teacher answers logits [0, 3] to images [2, 1, 4, 4]"),
        (
            lambda logits, training: (logits, -logits) if training else logits,
            "student returns a tuple of 0 [2, 3], 1 [2, 3], of which 0 and 1 may be the logits; "
            'name them: config={"student.output": "1"}',
        ),
        (
            lambda logits, training: logits.detach(),
            "teacher: no gradient reaches the images, which are made by gradients: they end in _Answering.forward, "
            "after fc; take that out",
        ),
        (lambda logits, training: logits.sigmoid(), "teacher answers numbers from 0 to 1 that do not sum to 1"),
        (lambda logits, training: logits[:, :1], "teacher returns one number for an image"),
        (lambda logits, training: logits[:, 0], "teacher returns one number for an image"),
        (lambda logits, training: logits.argmax(1), "teacher returns int64 [2], as numbers of classes are; have it"),
    ],
    ids=["either", "none", "too few", "two in training", "no gradient", "sigmoid", "one", "squeezed", "argmax"],
)
def test_answers_that_cannot_be_read(form: Form, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny_transfer(*_answering(form))
    assert str(caught.value).startswith(problem)


def test_an_output_that_is_named() -> None:
    expected = tiny_transfer(*tiny_pair(), speed="plain")
    pair = _answering(lambda logits, training: (-logits, logits))
    outputs = {"teacher.output": "1", "student.output": "1"}
    with warnings.catch_warnings(action="error", category=UserWarning):
        result = tiny_transfer(*pair, outputs, speed="plain")
    assert result.scores == expected.scores
    assert_equal(state_of(result.student), state_of(expected.student))


def test_the_other_network_tells_which_part_holds_the_logits() -> None:
    """Alone, a teacher of features [2, 7] and logits [2, 3] may have seven classes or three."""
    expected = tiny_transfer(*tiny_pair(), speed="plain").scores

    def beside(width: int) -> Form:
        return lambda logits, training: {"features": torch.zeros(len(logits), width), "scores": logits}

    teacher, student = _answering(beside(7))
    assert tiny_transfer(teacher, tiny_pair()[1], speed="plain").scores == expected
    student = _answering(beside(5))[1]
    assert tiny_transfer(teacher, student, speed="plain").scores == expected


@pytest.mark.filterwarnings("ignore:teacher. probabilities", "ignore:student. probabilities")
def test_networks_that_end_in_a_softmax_learn_as_those_that_do_not() -> None:
    expected = tiny_transfer(*tiny_pair(), speed="plain").history
    found = tiny_transfer(*_answering(lambda logits, training: logits.softmax(dim=1)), speed="plain").history
    assert [row["kl"] for row in found] == pytest.approx([row["kl"] for row in expected], rel=1e-3)


def test_what_is_unusual_about_answers_is_a_warning() -> None:
    pair = _answering(lambda logits, training: logits.log_softmax(dim=1))
    with pytest.warns(UserWarning, match="teacher: log-probabilities, which serve as logits"):
        tiny_transfer(*pair, iterations=2)


def test_answers_by_chance_are_a_warning_of_their_own() -> None:
    pair = _answering(lambda logits, training: nn.functional.dropout(logits, 0.5))
    with pytest.warns(UserWarning, match="^teacher gives another answer to the same images each time"):
        tiny_transfer(*pair, iterations=2)


def test_networks_that_fail_on_one_image() -> None:
    pair = _answering(lambda logits, training: logits.squeeze())
    with pytest.warns(UserWarning, match="student: logits; a single image is asked for twice"):
        tiny_transfer(*pair, iterations=2)
    assert not _hooks(*pair)


def test_what_is_no_network_is_said() -> None:
    teacher, student = tiny_pair()
    with pytest.raises(UserError, match=r"^teacher is the class TinyClassifier; give a network, an instance"):
        tiny_transfer(TinyClassifier, student)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^student is a OrderedDict; give a network"):
        tiny_transfer(teacher, student.state_dict())  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_modules_are_refused_with_the_remedy() -> None:
    teacher, student = tiny_pair()
    scripted = torch.jit.trace(teacher.eval(), torch.zeros(2, *SHAPE))
    for pair, role in (((scripted, student), "teacher"), ((teacher, scripted), "student")):
        with pytest.raises(
            UserError, match=rf"^{role} is a TorchScript module, .*; give the torch\.nn\.Module that it"
        ):
            tiny_transfer(*pair)


def test_networks_that_cannot_be_trained_on() -> None:
    teacher, student = tiny_pair()
    with pytest.raises(UserError, match="share weights"):
        tiny_transfer(teacher, teacher)
    teacher.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"to an image of zeros: its weights are not finite, first in fc\.weight"):
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


class _Keeping(TinyClassifier):
    """Keeps what it has computed, as users do who look at it afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        self.features, self.activations = [logits.relu(), logits], {"layer1": (logits.exp(),)}
        return logits


def test_networks_that_keep_what_they_computed() -> None:
    """Of a graph, which deepcopy refuses."""
    torch.manual_seed(1)
    teacher, student = _Keeping(3, norm=True), _Keeping(2, norm=True)
    for network in (teacher, student):
        network(torch.zeros(2, *SHAPE))
    kept = teacher.features[0]
    assert tiny_transfer(teacher, student, iterations=2).iterations == 2
    assert teacher.features[0] is kept
    assert kept.requires_grad


def test_networks_that_cannot_be_copied() -> None:
    teacher, student = tiny_pair()
    teacher.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"^teacher cannot be copied: TypeError: cannot pickle .*lock") as caught:
        tiny_transfer(teacher, student)
    assert "\n" not in str(caught.value)


def _broken(logits: Tensor, training: bool) -> Tensor:
    return {"layer1": logits}["layer2"]


def _choosy(logits: Tensor, training: bool) -> Tensor:
    torch._assert(len(logits) == 3, "wrong size")
    return logits


@pytest.mark.parametrize(
    ("form", "problem"), [(_broken, "KeyError: 'layer2'"), (_choosy, "AssertionError: wrong size")]
)
def test_whatever_a_network_raises_is_one_line(form: Form, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny_transfer(*_answering(form))
    message = f"teacher cannot take images [2, 1, 4, 4] of torch.float32: {problem} ("
    assert str(caught.value).startswith(message)


class _Ensemble(nn.Module):
    """Its members are in a list, so that none of their parameters are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.members = [TinyClassifier(2).eval() for _ in range(2)]

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


def test_teachers_without_parameters_of_their_own() -> None:
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match="no attention term"):
        assert tiny_transfer(_Ensemble(), tiny_pair()[1], iterations=2).iterations == 2


def test_declared_layers_that_are_not_there() -> None:
    """The student is no name's, so the message names none."""
    teacher, student = tiny_pair()
    student.attention_layers = ("act1", "act3")
    with pytest.raises(UserError, match=r"^student declares attention_layers 'act3': no such layer; did you mean 'act"):
        tiny_transfer(teacher, student)


def test_images_as_the_teacher_tells_as_given_or_not_at_all() -> None:
    teacher, student = tiny_pair()
    with pytest.raises(ConfigError, match=r"^input_shape=None: the teacher does not declare .* give \(channels"):
        tiny_transfer(teacher, student, input_shape=None)
    teacher.pretrained_cfg = {"input_size": SHAPE, "mean": (0.5,)}
    assert tiny_transfer(teacher, student, input_shape=None, iterations=2).input_shape == SHAPE
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="input_shape")
        tiny_transfer(teacher, student, input_shape=SHAPE, iterations=2)
    teacher.pretrained_cfg = {"input_size": (3, 224, 224)}
    with pytest.warns(UserWarning, match=r"^input_shape=\(1, 4, 4\) is taken; .* says \(3, 224, 224\)") as caught:
        assert tiny_transfer(teacher, student, iterations=2).input_shape == SHAPE
    (warned,) = (each for each in caught if "input_shape" in str(each.message))
    assert warned.filename.endswith("transfers.py"), "where transfer was called"


def test_networks_of_timm_tell_their_images() -> None:
    timm = pytest.importorskip("timm")
    assert images_of(timm.create_model("test_vit"), None) == (3, 160, 160)


def test_a_transfer_that_does_not_begin_leaves_the_student_as_it_was() -> None:
    """The teacher has no linear layer; that is seen when the student has been prepared already."""
    teacher = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    student = tiny_pair()[1].eval()
    student.conv2.train()
    config = {"generator_terms.diversity": 1.0, "engine.activation_checkpointing": True}
    with pytest.raises(ConfigError, match=r"^generator_terms\.diversity=1\.0: needs a teacher with a linear layer"):
        tiny_transfer(teacher, student, config, beta=0, device="auto")
    assert device_of(student).type == "cpu"
    assert [name for name, module in student.named_modules() if module.training] == ["conv2"]
    assert not any("forward" in vars(module) for module in student.modules())
    assert not _hooks(student)
