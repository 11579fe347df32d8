"""`evaluate` and `mean_transition_error`, against numbers counted by hand or by the commands."""

import doctest
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import zskt_dist
from tests.support.configs import tiny_config
from tests.support.jobs import evaluate_in
from tests.support.nets import TinyClassifier
from zskt_dist.api import measuring, training
from zskt_dist.config import with_overrides
from zskt_dist.data import open_dataset
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError
from zskt_dist.files import read_json
from zskt_dist.networks.building import load_trained
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

# One image is its own logits.
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
IMAGES = LOGITS.view(4, 1, 1, 2)
LABELS = torch.tensor([0, 1, 1, 1])


class _Mirror(nn.Module):
    """Exchanges the two logits of the first image of a batch, and so disagrees about it."""

    def forward(self, x: Tensor) -> Tensor:
        logits = x.flatten(1).clone()
        return torch.where(logits[:, :1] == 2.0, logits.flip(1), logits)


class _Wordy(nn.Module):
    """Returns more than the logits of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": torch.zeros(len(x), 7), "logits": self.network(x)}


@pytest.mark.parametrize("module", [measuring, training], ids=["measuring", "training"])
def test_examples(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried > 4
    assert not failed


@pytest.mark.parametrize("form", ["tensor", "loader", "list"])
def test_counts(form: str) -> None:
    network = nn.Flatten()
    if form == "tensor":
        scores = zskt_dist.evaluate(network, IMAGES, LABELS, _Mirror(), batch_size=3)
    else:
        loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=3)
        scores = zskt_dist.evaluate(network, loader if form == "loader" else list(loader), teacher=_Mirror())
    sigmoids = [1 / (1 + math.exp(-x)) for x in (2, 1, 3, 4)]
    p = sigmoids[0]
    assert (scores.images, scores.accuracy, scores.agreement, scores.teacher_accuracy) == (4, 0.75, 0.75, 0.5)
    assert scores.confusion == [[1, 0], [1, 2]]
    assert scores.confidence == pytest.approx(sum(sigmoids) / 4)
    # Each image is alone in its bin but the last two, of confidences above 14/15; one of those is wrong.
    high = abs(1 - sum(sigmoids[2:]))
    assert scores.calibration_error == pytest.approx((1 - sigmoids[0] + 1 - sigmoids[1] + high) / 4)
    assert scores.kl == pytest.approx(((1 - p) * math.log((1 - p) / p) + p * math.log(p / (1 - p))) / 4)


def test_what_is_not_given_is_not_measured() -> None:
    scores = zskt_dist.evaluate(nn.Flatten(), [IMAGES, IMAGES])
    assert scores.images == 8
    assert scores.confidence > 0.5
    rest = (scores.accuracy, scores.agreement, scores.teacher_accuracy, scores.kl, scores.confusion)
    assert (*rest, scores.calibration_error) == (None,) * 6


def test_networks_are_asked_in_eval_mode_and_not_changed() -> None:
    network = TinyClassifier(2, norm=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(6, 1, 4, 4)
    shares = [zskt_dist.evaluate(network, x, batch_size=size).confidence for size in (6, 1)]
    assert shares[0] == pytest.approx(shares[1]), "no batch statistics"
    error = zskt_dist.mean_transition_error(network, TinyClassifier(2), torch.randn(60, 1, 4, 4), steps=3)
    assert error.images > 0
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


class _Soft(nn.Module):
    """Answers probabilities, or what else `change` makes of the logits."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda logits: logits.softmax(dim=1)) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(x.flatten(1))


def test_of_probabilities_the_logarithms_are_taken() -> None:
    """Otherwise a second softmax would make them all but even."""
    teacher = _Mirror()
    plain = zskt_dist.evaluate(nn.Flatten(), IMAGES, LABELS, teacher)
    with pytest.warns(UserWarning, match=r"^network: probabilities, of which the logarithms are taken") as caught:
        soft = zskt_dist.evaluate(_Soft(), IMAGES, LABELS, teacher)
    assert caught[0].filename == __file__
    assert (soft.confidence, soft.calibration_error, soft.kl) == pytest.approx(
        (plain.confidence, plain.calibration_error, plain.kl)
    )
    with pytest.warns(UserWarning, match="teacher: probabilities"):
        assert zskt_dist.evaluate(teacher, IMAGES, teacher=_Soft()).kl == pytest.approx(plain.kl)
    plain_error = zskt_dist.mean_transition_error(nn.Flatten(), teacher, IMAGES, steps=3)
    with pytest.warns(UserWarning, match="network_a: probabilities") as caught:
        soft_error = zskt_dist.mean_transition_error(_Soft(), teacher, IMAGES, steps=3)
    assert caught[0].filename == __file__
    assert soft_error.p_a == pytest.approx(plain_error.p_a)


def test_logits_that_lie_like_probabilities_by_chance_are_logits() -> None:
    with warnings.catch_warnings(action="error"):
        scores = zskt_dist.evaluate(nn.Flatten(), [torch.zeros(0, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])])
    assert scores.confidence == pytest.approx(1 / (1 + math.exp(-1)))


def _beside_features(width: int) -> Callable[[Tensor], Any]:
    return lambda logits: {"features": torch.zeros(len(logits), width), "scores": logits}


def test_which_part_holds_the_logits_is_told_by_the_teacher_or_the_labels() -> None:
    network, plain = _Soft(_beside_features(7)), nn.Flatten()
    assert zskt_dist.evaluate(network, IMAGES, LABELS) == zskt_dist.evaluate(plain, IMAGES, LABELS)
    assert zskt_dist.evaluate(network, IMAGES, teacher=plain).agreement == 1
    assert zskt_dist.evaluate(network, IMAGES, teacher=_Soft(_beside_features(5))).agreement == 1
    assert zskt_dist.mean_transition_error(network, plain, IMAGES, steps=2).value == 0
    for either in (network, _Soft(_beside_features(2))):
        with pytest.raises(UserError, match="may be the logits; wrap it in a network that returns the logits alone"):
            zskt_dist.evaluate(either, IMAGES)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_modules_are_measured() -> None:
    network = torch.jit.trace(nn.Flatten(), IMAGES)
    assert zskt_dist.evaluate(network, IMAGES, LABELS, network) == zskt_dist.evaluate(
        nn.Flatten(), IMAGES, LABELS, nn.Flatten()
    )
    assert zskt_dist.mean_transition_error(network, network, IMAGES, steps=2).value == 0


def test_what_is_no_network_is_said() -> None:
    for teacher in ("teacher.pt", nn.Flatten):
        with pytest.raises(UserError, match=r"^teacher is (a str|the class Flatten); give a network"):
            zskt_dist.evaluate(nn.Flatten(), IMAGES, teacher=teacher)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^network_b is a str; give a network"):
        zskt_dist.mean_transition_error(nn.Flatten(), "teacher.pt", IMAGES)  # type: ignore[arg-type]


BAD = [
    ((torch.rand(0, 1, 1, 2),), "there are no images"),
    ((IMAGES, LABELS[:2]), "there are 4 images and 2 labels"),
    ((IMAGES, [1, 0, 0, 1]), "labels are list; expected a tensor"),
    ((None,), "images are NoneType; expected a tensor"),
    (("photos",), "images are str; expected a tensor"),
    (([IMAGES], LABELS), "labels belong to a tensor of images"),
    (([{"image": IMAGES}],), "the loader gives dict; expected images, or pairs"),
    (([IMAGES, (IMAGES, LABELS)],), "some batches have labels and others have none"),
    ((IMAGES, LABELS, nn.Sequential(nn.Flatten(), nn.Linear(2, 3))), "different numbers of classes: 2 and 3"),
    ((IMAGES, None, nn.Linear(5, 2)), r"teacher cannot take images \[4, 1, 1, 2\]"),
    ((IMAGES, None, nn.Identity()), r"teacher returns a tensor \[4, 1, 1, 2\] where logits are expected"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_wrong_input(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        zskt_dist.evaluate(nn.Flatten(), *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "classes"), [(torch.uint8, 20), (torch.int16, 200), (torch.uint16, 300)])
def test_labels_are_any_integers(kind: torch.dtype, classes: int) -> None:
    """The number of the last cell of the confusion, 20 x 20 and so on, is beyond what these types hold."""
    logits, last = 5 * torch.eye(classes), min(classes, torch.iinfo(kind).max + 1)
    images, labels = logits.view(classes, 1, 1, classes)[:last], torch.arange(last).to(kind)
    scores = zskt_dist.evaluate(nn.Flatten(), images, labels, nn.Flatten())
    assert (scores.accuracy, scores.teacher_accuracy) == (1, 1)
    assert scores.confusion == torch.eye(classes, dtype=torch.int64).tolist()
    error = zskt_dist.mean_transition_error(nn.Flatten(), nn.Flatten(), images[:2], labels[:2], steps=2)
    assert error.images == 2


WRONG = {
    "from 1": (LABELS + 1, "labels are from 1 to 2, and 2 classes are numbered from 0 to 1"),
    "negative": (LABELS - 1, "labels are from -1 to 0, and 2"),
    "column": (LABELS[:, None], r"labels are \[4, 1\], where each of 4 images has one class; give \[N\]"),
    "one-hot": (nn.functional.one_hot(LABELS), r"labels are \[4, 2\], .*; labels.argmax\(dim=1\) is that of one-hot"),
    "float": (LABELS.float(), r"labels are float32; give integers, as labels.long\(\) does"),
}


@pytest.mark.parametrize(("labels", "problem"), WRONG.values(), ids=WRONG)
def test_wrong_labels(labels: Tensor, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        zskt_dist.evaluate(nn.Flatten(), IMAGES, labels)
    with pytest.raises(UserError, match=problem):
        zskt_dist.mean_transition_error(nn.Flatten(), nn.Flatten(), IMAGES, labels)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float64])
def test_images_of_another_type_than_the_network_takes(kind: torch.dtype) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(
        UserError, match=rf"^network takes float32 images; give normalised float32 images, not {kind} \("
    ):
        zskt_dist.evaluate(network, IMAGES.to(kind))
    assert zskt_dist.evaluate(network.double(), IMAGES.double()).images == 4
    with pytest.raises(UserError, match="are the images of the size and channels that the network was made for"):
        zskt_dist.evaluate(network, IMAGES.double()[..., :1])


def test_sizes_below_one() -> None:
    with pytest.raises(UserError, match="batch_size=0: expected at least 1"):
        zskt_dist.evaluate(nn.Flatten(), IMAGES, batch_size=0)
    for sizes in ({"steps": 0}, {"rows": 0}):
        with pytest.raises(UserError, match=r"^(steps|rows)=0: expected at least 1"):
            zskt_dist.mean_transition_error(nn.Flatten(), nn.Flatten(), IMAGES, **sizes)


def test_transition_error_of_a_step_worked_out_by_hand() -> None:
    """B believes 1/2 whatever it sees; A sees its own logits, and one gradient step moves them by (p, -p)."""
    halves = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    nn.init.zeros_(halves[1].weight)
    nn.init.constant_(halves[1].bias, 0.0)
    x = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    error = zskt_dist.mean_transition_error(nn.Flatten(), halves, x, steps=2, step_size=0.5)
    before = 1 / (1 + math.exp(1.0))  # belief in class 1
    step = 0.5 * (1 - before)
    after = 1 / (1 + math.exp(1.0 - 2 * step))
    assert error.images == 1
    assert error.p_a == pytest.approx([before, after])
    assert error.p_b == pytest.approx([0.5, 0.5])
    assert float(error) == error.value == pytest.approx((0.5 - before + 0.5 - after) / 2)


def test_only_images_they_agree_on_count() -> None:
    error = zskt_dist.mean_transition_error(nn.Flatten(), _Mirror(), IMAGES, steps=1)
    assert error.images == 3
    with pytest.raises(UserError, match="agree on none of the 1 images"):
        zskt_dist.mean_transition_error(nn.Flatten(), _Mirror(), IMAGES[:1])
    with pytest.raises(UserError, match="same two or more classes, they have 2 and 3"):
        zskt_dist.mean_transition_error(nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(2, 3)), IMAGES)


def test_logits_are_found_in_what_networks_return() -> None:
    told = [
        (
            zskt_dist.evaluate(network, IMAGES, LABELS, teacher),
            zskt_dist.mean_transition_error(network, teacher, IMAGES, steps=3),
        )
        for network, teacher in ((nn.Flatten(), _Mirror()), (_Wordy(nn.Flatten()), _Wordy(_Mirror())))
    ]
    assert told[0] == told[1]


def test_both_measure_what_the_command_measures(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "supervised.iterations=40", "transitions.images=20", "transitions.steps=5")
    job = Job.plan("train", config)
    job.directory.begin("train", config, job.goal.inputs.get("teacher"))
    Worker(job, World(torch.device("cpu"))).run()
    weights = job.stages[0].directory.weights("teacher")
    evaluate_in(job.directory.path, with_overrides(config, [f"teacher.checkpoint={weights}"]))
    answer = read_json(job.directory.evaluation / "evaluation.json")
    student, _ = load_trained(config, "student", job.directory.weights("student"))
    teacher, _ = load_trained(config, "teacher", weights)
    dataset = open_dataset(config)
    images = dataset.standardise(torch.device("cpu"))(dataset.test.images)

    scores = zskt_dist.evaluate(student, images, dataset.test.labels, teacher)
    assert scores.accuracy == answer["accuracy"]
    assert scores.agreement == answer["agreement"]
    assert scores.teacher_accuracy == answer["teacher_accuracy"]
    assert scores.calibration_error == pytest.approx(answer["calibration"]["student"]["ece"])
    agreed = student(images).argmax(dim=1) == teacher(images).argmax(dim=1)
    error = zskt_dist.mean_transition_error(student, teacher, images[agreed][:20], steps=5)
    assert error.value == pytest.approx(answer["mte"]["value"], rel=1e-5)
    assert error.p_b == pytest.approx(answer["mean_curves"]["p_b"], rel=1e-5)
