"""Who says what the networks' images are: agreement, defaults, contradictions with both values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from tests.support.images import png, write_parquet
from tests.support.jobs import ALONE
from tests.support.object_store import ObjectStore
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.inputs import Inputs
from zskt_dist.networks.weights import save_weights
from zskt_dist.runs.locations import connect
from zskt_dist.tasks.base import check_images
from zskt_dist.tasks.stages import Stage
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

SOME = ("data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _teacher(folder: Path, shape: tuple[int, int, int], classes: int, mean: list[float], std: list[float]) -> Path:
    """A file of ours."""
    network = build_network("wrn-10-1", ImageShape(*shape), classes)
    about = {"arch": "wrn-10-1", "image_shape": list(shape), "num_classes": classes, "mean": mean, "std": std}
    save_weights(folder / "teacher.safetensors", network, about)
    return folder / "teacher.safetensors"


def _foreign(folder: Path) -> Path:
    """A file that says nothing."""
    torch.save({}, folder / "foreign.pt")
    return folder / "foreign.pt"


def _inputs(job: Job) -> Inputs:
    """As a driver and its workers open them."""
    check_images(job.stages)
    return Worker(job, ALONE).inputs


def _open(folder: Path, checkpoint: Path | None, *overrides: str, command: str = "train") -> Inputs:
    given = [] if checkpoint is None else [f"teacher.checkpoint={checkpoint}"]
    return _inputs(Job.plan(command, tiny_config(folder, "teacher.arch=wrn-10-1", *given, *overrides)))


def test_without_data_a_file_of_ours_says_everything(tmp_path: Path) -> None:
    inputs = _open(tmp_path, _teacher(tmp_path, (3, 30, 45), 7, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), "data.name=none")
    assert inputs.image_shape == ImageShape(3, 30, 45)
    assert inputs.num_classes == 7
    assert inputs.mean_std == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert inputs.dataset is None
    white = inputs.standardise(torch.device("cpu"))(torch.full((1, 3, 30, 45), 255, dtype=torch.uint8))
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([0.9 / 0.5, 0.8 / 0.6, 0.7 / 0.7]))


def test_without_data_the_user_says_everything(tmp_path: Path) -> None:
    said = ("data.image_shape=[4,17,9]", "data.num_classes=3", "data.mean=[0,0,0,0]", "data.std=[1,1,1,1]")
    inputs = _open(tmp_path, _foreign(tmp_path), "data.name=none", *said)
    assert (inputs.image_shape, inputs.num_classes) == (ImageShape(4, 17, 9), 3)
    assert inputs.mean_std == ((0, 0, 0, 0), (1, 1, 1, 1))
    assert inputs.normalised_by == "data.mean"


def test_an_architecture_fills_in_what_the_user_leaves_out(tmp_path: Path) -> None:
    arch, none = "teacher.arch=torchvision:resnet18", "data.name=none"
    inputs = _open(tmp_path, _foreign(tmp_path), arch, none)
    guessed = ("data.image_shape", "data.num_classes", "data.mean")
    assert inputs == Inputs(ImageShape(3, 224, 224), 1000, IMAGENET, "teacher.arch", None, guessed)
    assert inputs.warning
    assert "=[3,224,224] data.num_classes=1000 data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224," in inputs.warning
    inputs = _open(tmp_path, _foreign(tmp_path), arch, none, "data.image_shape=[3,32,48]", "data.num_classes=10")
    assert (inputs.image_shape, inputs.num_classes, inputs.mean_std) == (ImageShape(3, 32, 48), 10, IMAGENET)
    assert inputs.guessed == ("data.mean",)
    with pytest.raises(ConfigError, match="how the teacher's images are normalised") as raised:
        _open(tmp_path, _foreign(tmp_path), arch, none, "data.image_shape=[1,32,48]")
    assert raised.value.key == "data.mean", "ImageNet's three numbers are none for gray images"


@pytest.mark.parametrize("name", ["teacher.safetensors.bak", "teacher.bin", "teacher"])
def test_a_file_of_ours_under_another_name(name: str, tmp_path: Path) -> None:
    renamed = _teacher(tmp_path, (3, 30, 45), 7, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]).rename(tmp_path / name)
    inputs = _open(tmp_path, renamed, "data.name=none")
    assert (inputs.image_shape, inputs.num_classes) == (ImageShape(3, 30, 45), 7)
    assert inputs.mean_std == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def test_a_file_of_ours_in_a_store(tmp_path: Path, object_store: ObjectStore) -> None:
    teacher = _teacher(tmp_path, (3, 30, 45), 7, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    uri = object_store.uri("teacher.safetensors")
    assert uri.partition("?")[2], "the query belongs to the store"
    filesystem, path = connect(uri)
    with filesystem.open_output_stream(path) as file:
        file.write(teacher.read_bytes())
    inputs = _inputs(Job.plan("train", tiny_config(tmp_path, f"teacher.checkpoint={uri}", "data.name=none")))
    assert (inputs.image_shape, inputs.num_classes) == (ImageShape(3, 30, 45), 7)


def test_a_file_of_ours_goes_before_its_architecture(tmp_path: Path) -> None:
    teacher = _teacher(tmp_path, (3, 30, 45), 7, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    inputs = _open(tmp_path, teacher, "teacher.arch=torchvision:resnet18", "data.name=none")
    assert (inputs.image_shape, inputs.num_classes) == (ImageShape(3, 30, 45), 7)
    assert inputs.normalised_by == "teacher.checkpoint"
    assert inputs.warning is None


def test_a_data_set_goes_before_an_architecture(tmp_path: Path) -> None:
    inputs = _open(tmp_path, _foreign(tmp_path), "teacher.arch=torchvision:resnet18")
    assert (inputs.image_shape, inputs.num_classes) == (ImageShape(1, 8, 8), 10)
    assert inputs.mean_std == ((0.3054,), (0.3760,))
    assert inputs.dataset is not None


@pytest.mark.parametrize("key", ["data.image_shape", "data.num_classes", "data.mean"])
def test_what_nobody_says_is_asked_for(key: str, tmp_path: Path) -> None:
    said = {
        "data.image_shape": "data.image_shape=[1,9,9]",
        "data.num_classes": "data.num_classes=3",
        "data.mean": "data.mean=[0]",
    }
    words = [*(word for name, word in said.items() if name != key), *(["data.std=[1]"] if key != "data.mean" else [])]
    with pytest.raises(ConfigError, match=r"neither data nor teacher\.checkpoint nor teacher\.arch states") as raised:
        _open(tmp_path, _foreign(tmp_path), "data.name=none", *words)
    assert raised.value.key == key


CONTRADICTIONS = {
    "size": (["data.image_shape=[1,8,9]"], "data.image_shape", ["[1,8,9]", "teacher.checkpoint", "[1,8,8]", "=null"]),
    "classes": (["data.num_classes=7"], "data.num_classes", ["7 classes", "teacher.checkpoint", "10", "=null"]),
    "normalisation": (
        ["data.mean=[0.5]", "data.std=[0.376]"],
        "data.mean",
        ["data.mean=[0.5] data.std=[0.376]", "teacher.checkpoint", "data.mean=[0.3054] data.std=[0.376]"],
    ),
    "std alone": (["data.mean=[0.3054]", "data.std=[0.38]"], "data.mean", ["data.std=[0.38]", "data.std=[0.376]"]),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_the_user_contradicts_the_teacher(what: str, tmp_path: Path) -> None:
    overrides, key, shown = CONTRADICTIONS[what]
    teacher = _teacher(tmp_path, (1, 8, 8), 10, [0.3054], [0.376])
    assert _open(tmp_path, teacher, "data.name=none").num_classes == 10
    with pytest.raises(ConfigError) as raised:
        _open(tmp_path, teacher, "data.name=none", *overrides)
    assert raised.value.key == key
    assert all(part in str(raised.value) for part in shown), str(raised.value)


@pytest.mark.parametrize("what", ["size", "classes"])
def test_the_user_contradicts_the_data_set(what: str, tmp_path: Path) -> None:
    overrides, key, _ = CONTRADICTIONS[what]
    with pytest.raises(ConfigError, match=r"data.name=digits means (\[1,8,8\]|10); use data\.\w+=null") as raised:
        _open(tmp_path, None, *overrides)
    assert raised.value.key == key
    _open(tmp_path, None, "data.image_shape=[1,8,8]", "data.num_classes=10")


def test_the_user_may_normalise_a_data_set_in_another_way(tmp_path: Path) -> None:
    inputs = _open(tmp_path, _foreign(tmp_path), "data.mean=[0.5]", "data.std=[0.5]")
    assert inputs.mean_std == ((0.5,), (0.5,))
    assert inputs.dataset is not None
    assert inputs.dataset.mean_std == ((0.5,), (0.5,))


@pytest.mark.parametrize(
    ("shape", "classes", "mean", "shown"),
    [
        ((3, 8, 8), 10, [0.3054] * 3, ["images of [1,8,8]", "[3,8,8]"]),
        ((1, 8, 12), 10, [0.3054], ["images of [1,8,8]", "[1,8,12]"]),
        ((1, 8, 8), 11, [0.3054], ["10 classes", "11"]),
        ((1, 8, 8), 10, [0.5], ["data.mean=[0.3054]", "data.mean=[0.5]"]),
    ],
)
def test_the_teacher_contradicts_the_data_set(
    shape: tuple[int, int, int], classes: int, mean: list[float], shown: list[str], tmp_path: Path
) -> None:
    teacher = _teacher(tmp_path, shape, classes, mean, [0.376] * len(mean))
    with pytest.raises(ConfigError) as raised:
        _open(tmp_path, teacher, "data.name=digits")
    assert raised.value.key == "data.name"
    assert all(part in str(raised.value) for part in [*shown, "teacher.checkpoint"]), str(raised.value)
    _open(tmp_path, teacher, "data.name=digits", command="pretrain")  # which looks at no teacher


def test_a_normalisation_of_other_channels_says_what_to_give(tmp_path: Path) -> None:
    given = ["data.name=none", "data.image_shape=[2,28,28]", "data.num_classes=10"]
    with pytest.raises(ConfigError, match=r"^data\.mean=") as raised:
        _open(tmp_path, _foreign(tmp_path), *given, "data.mean=[0.5,0.5,0.5]", "data.std=[1,1,1]")
    assert str(raised.value).endswith(
        "does not fit images of 2 channels; give one number per channel, "
        "for example data.mean=[0.5,0.5] data.std=[0.25,0.25], or null for both"
    )
    teacher = _teacher(tmp_path, (1, 8, 8), 10, [0.5] * 3, [1.0] * 3)
    with pytest.raises(
        ConfigError, match=r"comes from teacher\.checkpoint and does not fit images of 1 chan"
    ) as raised:
        _open(tmp_path, teacher, "data.name=none")
    assert "null" not in str(raised.value)


def test_one_number_is_that_of_all_channels(tmp_path: Path) -> None:
    given = ["data.name=none", "data.image_shape=3,28,28", "data.num_classes=10", "data.mean=0.5", "data.std=0.25"]
    assert _open(tmp_path, _foreign(tmp_path), *given).mean_std == ((0.5,) * 3, (0.25,) * 3)
    teacher = _teacher(tmp_path, (3, 8, 8), 10, [0.5] * 3, [0.25] * 3)
    assert _open(tmp_path, teacher, "data.name=none", *given[3:]).mean_std == ((0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ConfigError, match=r"was trained with data\.mean=\[0\.5,0\.5,0\.5\]"):
        _open(tmp_path, teacher, "data.name=none", "data.mean=0.4", "data.std=0.25")


@pytest.mark.parametrize(
    ("arch", "problem"),
    [
        ("my_nets.Teacher", r"unknown architecture; did you mean 'my_nets:Teacher'\?"),
        ("lenett", "unknown architecture; known are .*did you mean 'lenet'"),
        ("my_nets:Teachr", r"my_nets has no 'Teachr'; did you mean 'Teacher'\?"),
        ("tests.support.user_networks:Plain", None),
    ],
)
def test_a_name_that_no_network_has_is_what_is_said_first(
    arch: str, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody is asked what its images are."""
    (tmp_path / "my_nets.py").write_text("def Teacher(): ...")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as raised:
        _open(tmp_path, _foreign(tmp_path), "data.name=none", f"teacher.arch={arch}")
    if problem is None:
        assert raised.value.key == "data.image_shape"
        assert str(raised.value).endswith("give channels,height,width, as 3,32,32")
    else:
        assert raised.value.key == "teacher.arch"
        raised.match(problem)


def test_rounding_is_no_contradiction(tmp_path: Path) -> None:
    teacher = _teacher(tmp_path, (1, 8, 8), 10, [0.30543], [0.37602])
    assert _open(tmp_path, teacher).mean_std == ((0.3054,), (0.3760,))


def _parquet(folder: Path, *splits: str) -> list[str]:
    """Six images of 30 x 45, three colours, three classes."""
    rng = np.random.default_rng(0)
    images = [png(rng.integers(0, 256, (30, 45, 3), dtype=np.uint8)) for _ in range(6)]
    for split in splits:
        write_parquet(folder / f"images/{split}-0.parquet", images, [0, 1, 2, 0, 1, 2])
    return ["data.name=parquet", f"data.root={folder / 'images'}"]


def test_a_folder_of_oblong_images(tmp_path: Path) -> None:
    inputs = _open(tmp_path, None, *_parquet(tmp_path, "train", "test"))
    assert (inputs.image_shape, inputs.num_classes) == (ImageShape(3, 30, 45), 3)
    assert inputs.statistics is None
    assert inputs.mean_std[0] == pytest.approx((0.5, 0.5, 0.5), abs=0.02), "measured on bytes drawn evenly"
    assert inputs.dataset is not None
    assert inputs.dataset.test.images.shape == (6, 3, 30, 45)


def test_test_images_alone_are_normalised_as_the_teacher_says(tmp_path: Path) -> None:
    words = _parquet(tmp_path, "test")
    teacher = _teacher(tmp_path, (3, 30, 45), 3, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    assert _open(tmp_path, teacher, *words).mean_std == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert _open(tmp_path, _foreign(tmp_path), *words, "teacher.arch=torchvision:resnet18").mean_std == IMAGENET
    with pytest.raises(ConfigError, match="how the teacher's images are normalised") as raised:
        _open(tmp_path, _foreign(tmp_path), *words)
    assert raised.value.key == "data.mean"


def test_images_need_not_be_of_all_classes(tmp_path: Path) -> None:
    words = _parquet(tmp_path, "test")
    teacher = _teacher(tmp_path, (3, 30, 45), 7, [0.5] * 3, [0.5] * 3)
    inputs = _open(tmp_path, teacher, *words)
    assert inputs.dataset is not None
    assert (inputs.num_classes, inputs.dataset.num_classes) == (7, 7)
    assert _open(tmp_path, _foreign(tmp_path), *words, "data.num_classes=9", *SOME).num_classes == 9
    assert _open(tmp_path, _foreign(tmp_path), *words, *SOME).num_classes == 3
    with pytest.raises(ConfigError, match="has labels up to 2, and the networks tell 2 classes apart"):
        _open(tmp_path, _foreign(tmp_path), *words, "data.num_classes=2", *SOME)


def _labelled(folder: Path, *labels: object) -> list[str]:
    """Test images alone, of 3x30x45, for `_teacher`."""
    write_parquet(folder / "images/test-0.parquet", [png(np.zeros((30, 45, 3), np.uint8))] * len(labels), labels)
    return ["data.name=parquet", f"data.root={folder / 'images'}"]


def test_what_labels_mean_depends_on_the_classes_that_the_networks_tell_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """1 and 3 of 3 classes are the first and the last; of 4 they are the second and the last."""
    words = _labelled(tmp_path, 1, 3)
    for classes, expected in ((3, [0, 2]), (4, [1, 3])):
        teacher = _teacher(tmp_path, (3, 30, 45), classes, [0.5] * 3, [0.5] * 3)
        by_weights, by_key = (
            _open(tmp_path, teacher, *words).dataset,
            _open(tmp_path, _foreign(tmp_path), *words, *SOME, f"data.num_classes={classes}").dataset,
        )
        assert by_weights
        assert by_key
        assert by_weights.test.labels.tolist() == by_key.test.labels.tolist() == expected
    assert caplog.messages[0] == "labels: 1 is 0, 3 is 2 (from 1, and none is 0)"
    assert caplog.messages[-1] == "labels: 1 is 1, 3 is 3 (as they are, and none is 0)"


def test_fewer_names_than_classes_are_refused(tmp_path: Path) -> None:
    words = _labelled(tmp_path, "cat", "dog")
    teacher = _teacher(tmp_path, (3, 30, 45), 3, [0.5] * 3, [0.5] * 3)
    with pytest.raises(
        ConfigError, match=r"has 2 class names \(cat, dog\), and the networks tell 3 classes apart"
    ) as raised:
        _open(tmp_path, teacher, *words)
    assert raised.value.key == "data.root"
    assert _open(tmp_path, _foreign(tmp_path), *words, *SOME).num_classes == 2


def test_train_images_go_before_what_an_architecture_declares(tmp_path: Path) -> None:
    words = _parquet(tmp_path, "train", "test")
    inputs = _open(tmp_path, _foreign(tmp_path), *words, "teacher.arch=torchvision:resnet18")
    assert inputs.mean_std[0] == pytest.approx((0.5, 0.5, 0.5), abs=0.02)


def test_a_damaged_file(tmp_path: Path) -> None:
    teacher = _teacher(tmp_path, (1, 8, 8), 10, [0.5], [0.5])
    teacher.write_bytes(teacher.read_bytes()[:100])
    with pytest.raises(ConfigError, match="is cut off; copy it again") as raised:
        _open(tmp_path, teacher, "data.name=none")
    assert raised.value.key == "teacher.checkpoint"


def test_metadata_that_is_not_ours(tmp_path: Path) -> None:
    network = build_network("lenet", ImageShape(1, 8, 8), 10)
    save_weights(tmp_path / "odd.safetensors", network, {"image_shape": [8]})
    with pytest.raises(ConfigError, match="damaged or not safetensors"):
        _open(tmp_path, tmp_path / "odd.safetensors", "data.name=none")


DAMAGED = {
    "text for a number": ({"num_classes": "10"}, "num_classes='10': expected a valid integer"),
    "half a class": ({"num_classes": 2.5}, "num_classes=2.5: expected a valid integer"),
    "text in a mean": ({"mean": ["0.5"], "std": [0.5]}, "mean.0='0.5': expected a valid number"),
    "nothing spread": ({"mean": [0.5], "std": [0]}, "std.0=0: expected greater than 0"),
    "not a number": ({"mean": [float("nan")], "std": [1]}, "mean.0=nan: expected a finite number"),
    "fewer channels": ({"mean": [0.5, 0.5], "std": [0.5]}, "not of equally many channels"),
    "no size": ({"image_shape": [1, 8, 0]}, "image_shape.2=0: expected greater than 0"),
    "a text": ({"image_shape": "1x8x8"}, "image_shape='1x8x8': expected a valid array"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_metadata(what: str, tmp_path: Path) -> None:
    damage, shown = DAMAGED[what]
    about = {"image_shape": [1, 8, 8], "num_classes": 10, "mean": [0.5], "std": [0.5]} | damage
    save_weights(tmp_path / "t.safetensors", build_network("lenet", ImageShape(1, 8, 8), 10), about)
    with pytest.raises(ConfigError) as raised:
        _open(tmp_path, tmp_path / "t.safetensors", "data.name=digits")
    assert raised.value.key == "teacher.checkpoint"
    assert shown in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("command", ["pretrain", "distill", "finetune", "evaluate"])
def test_commands_that_need_images(command: str, tmp_path: Path) -> None:
    teacher = _teacher(tmp_path, (1, 8, 8), 10, [0.5], [0.5])
    config = tiny_config(tmp_path, "data.name=none", f"teacher.checkpoint={teacher}")
    evaluation = Stage("evaluate", config, str(tmp_path), "", {"teacher": str(teacher)})
    job = Job((evaluation,), "local") if command == "evaluate" else Job.plan(command, config)
    with pytest.raises(ConfigError, match=f"{command} (learns from|measures on) labelled") as raised:
        _inputs(job)
    assert raised.value.key == "data.name"


def test_without_data_there_has_to_be_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train a teacher on") as raised:
        _open(tmp_path, None, "data.name=none")
    assert raised.value.key == "teacher.checkpoint"


def _shape_of(world: World, folder: Path, location: str) -> ImageShape:
    """The teacher lies where rank 0 alone sees it."""
    here = folder / f"rank{world.rank}" / location
    config = tiny_config(folder, "data.name=none", f"teacher.checkpoint={here}")
    return Worker(Job.plan("train", config), world).inputs.image_shape


def test_rank_0_alone_reads_the_weights(two_ranks: Ranks, tmp_path: Path) -> None:
    (tmp_path / "rank0").mkdir()
    _teacher(tmp_path / "rank0", (1, 8, 12), 10, [0.5], [0.5])
    assert two_ranks.run(_shape_of, tmp_path, "teacher.safetensors") == [ImageShape(1, 8, 12)] * 2
