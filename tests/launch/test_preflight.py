"""What cannot work is said before anything is trained."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from tests.support.configs import tiny_config, tiny_overrides
from tests.support.images import png, write_parquet
from zskt_dist.commands import pretrain, train
from zskt_dist.data import sources
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.launch import preflight as plan
from zskt_dist.logs import NOTE
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.attention import Attention, tap_pair
from zskt_dist.networks.weights import read_about, save_weights
from zskt_dist.tasks.stages import run_directory
from zskt_dist.training.job import Job


def _problems(folder: Path, command: str, *overrides: str) -> list[UserError]:
    return list(plan.Preflight(Job.plan(command, tiny_config(folder, *overrides))).problems())


UNPAIRED = ("teacher.arch=wrn-10-1", "student.arch=lenet", "loss.beta=1", "loss.attention_layers=[2]")


def test_finetuning_needs_maps_that_pair_where_it_trains_the_zero_shot_student(tmp_path: Path) -> None:
    (problem,) = _problems(tmp_path, "finetune", *UNPAIRED)
    assert isinstance(problem, ConfigError)
    assert problem.key == "loss.attention_layers"
    save_weights(tmp_path / "student.safetensors", build_network("lenet", ImageShape(1, 8, 8), 10), {})
    assert _problems(tmp_path, "finetune", *UNPAIRED, f"finetune.student={tmp_path / 'student.safetensors'}") == []


@pytest.mark.parametrize("command", ["distill", "finetune", "pretrain"])
def test_more_images_per_class_than_the_smallest_class_has(tmp_path: Path, command: str) -> None:
    (problem,) = _problems(tmp_path, command, "data.images_per_class=999", "supervised.network=student")
    assert isinstance(problem, ConfigError)
    assert problem.key == "data.images_per_class"
    assert _problems(tmp_path, command, "data.images_per_class=100", "supervised.network=student") == []


def test_images_per_class_are_for_those_who_see_them(tmp_path: Path) -> None:
    assert _problems(tmp_path, "train", "data.images_per_class=999") == []
    assert _problems(tmp_path, "pretrain", "data.images_per_class=999") == []


def test_labels_of_parquet_are_counted_without_decoding_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = [png(sources.read_digits("test").images[i, 0].numpy()) for i in range(4)]
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-0.parquet", pixels, [0, 0, 1, 0])
    config = tiny_config(tmp_path, "data.name=parquet", f"data.root={tmp_path}")
    dataset = sources.open_dataset(config)
    monkeypatch.setattr("zskt_dist.data.user_images.decode", None)
    assert dataset.train_labels.tolist() == [0, 0, 1, 0]


class _Convolutional(nn.Sequential):
    """Classifies by a mean over the image: no linear layer."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("beta", [0, 1])
def test_diversity_needs_a_linear_layer(tmp_path: Path, beta: int) -> None:
    config = tiny_config(tmp_path, "generator_terms.diversity=1", f"loss.beta={beta}")
    with pytest.raises(ConfigError, match="linear layer") as raised:
        tap_pair(config, _Convolutional(), _Convolutional(), Attention())
    assert raised.value.key == "generator_terms.diversity"


def test_a_dry_run_looks_at_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTE, "zskt_dist")
    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object, **keywords: object) -> object:
            calls[name] += 1
            return function(*arguments, **keywords)

        return called

    looks = ("open_inputs", "outlines", "suited", "load_into")
    for name in looks:
        monkeypatch.setattr(plan, name, counting(name, getattr(plan, name)))
    teacher = _nested(tmp_path)
    console = Console(width=200, record=True)
    plan.print_plan("train", tiny_config(tmp_path, teacher), [], console)
    shown = console.export_text()
    assert all(line in shown for line in ("compares conv1 with conv1", "MiB per worker", "lenet, ", "ready:")), shown
    assert calls == dict.fromkeys(looks, 1)
    assert caplog.text.count("takes the weights under state_dict") == 1


def _dry_run(folder: Path, *overrides: str) -> int:
    return train.main(tiny_overrides(folder, *overrides, "--dry-run"))


def test_a_dry_run_shows_the_plan_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taps = ["loss.taps.teacher=[conv1]", "loss.taps.student=[conv1]"]
    assert _dry_run(tmp_path, *taps) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Plan of train ")
    assert "ready: configuration" in printed.out
    assert "as a Ray job: ray job submit" in printed.out
    assert " ".join(taps) in printed.out.replace("'", ""), "brackets are no markup"


def test_a_dry_run_ends_as_the_command_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"teacher.checkpoint={tmp_path / 'gone.safetensors'}"]
    assert _dry_run(tmp_path, *words) == 2
    dry = capsys.readouterr()
    assert dry.out.startswith("Plan of train ")
    assert not re.search("ready|as a Ray job", dry.out)
    assert train.main(tiny_overrides(tmp_path, *words)) == 2
    assert dry.err == capsys.readouterr().err
    assert dry.err.startswith("error: teacher.checkpoint=")
    assert dry.err.endswith("gone.safetensors': no such file; null trains a teacher first\n")
    assert dry.err.count("\n") == 1


def test_a_dry_run_shows_all_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _dry_run(tmp_path, "teacher.checkpoint=gone.pt", "data.name=parquet", f"data.root={tmp_path}") == 2
    printed = capsys.readouterr()
    error, also = printed.err.splitlines()
    assert error.startswith("error: teacher.checkpoint=")
    assert also.startswith(f"also: data.root='{tmp_path}': ")
    assert "also: " not in printed.out


def test_a_dry_run_says_how_images_and_labels_are_read(tmp_path: Path) -> None:
    for place, label in enumerate(("[red]", "owl")):
        (tmp_path / "images" / "val" / label).mkdir(parents=True)
        image = png(sources.read_digits("test").images[place, 0].numpy(), "LA")
        (tmp_path / "images" / "val" / label / "x.png").write_bytes(image)
    words = ["data.name=parquet", f"data.root={tmp_path / 'images'}", "data.mean=[0]", "data.std=[1]"]
    save_weights(tmp_path / "t.safetensors", build_network("lenet", ImageShape(1, 8, 8), 2), {})
    console = Console(width=200, record=True)
    plan.print_plan(
        "train", tiny_config(tmp_path, *words, f"teacher.checkpoint={tmp_path / 't.safetensors'}"), [], console
    )
    lines = [[cell.strip() for cell in line.split("│")[1:3]] for line in console.export_text().splitlines()]
    for topic, text in (
        ("images", "test images: 2 class folders in val"),
        ("images", "there is no test split, val stands for it"),
        ("images", "mode LA is read as gray of 8 bits"),
        (
            "labels",
            "[red] is 0, owl is 1 (in alphabetical order, as `datasets` and torchvision's ImageFolder have them)",
        ),
    ):
        assert [topic, text] in lines


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_of_torchrun_shows_the_plan(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _dry_run(tmp_path) == 0
    assert ("Plan of train" in capsys.readouterr().out) == (rank == 0)


def test_a_run_tells_once_which_weights_it_takes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTE, "zskt_dist")
    assert train.main(tiny_overrides(tmp_path, _nested(tmp_path), "iterations=1", *LITTLE)) == 0
    assert caplog.text.count("takes the weights under state_dict") == 1


LITTLE = ("evaluation.held_out_images=0", "tracking.images=0", "launch.cpus_per_worker=1")


def _nested(folder: Path) -> str:
    torch.save({"state_dict": build_network("lenet", ImageShape(1, 8, 8), 10).state_dict()}, folder / "t.pt")
    return f"teacher.checkpoint={folder / 't.pt'}"


def _parquet(folder: Path, labels: list[int]) -> list[str]:
    images = [png(sources.read_digits("test").images[i, 0].numpy()) for i in range(len(labels))]
    for split in ("train", "test"):
        write_parquet(folder / f"{split}-0.parquet", images, labels)
    return ["data.name=parquet", f"data.root={folder}", "iterations=1", "supervised.iterations=1", *LITTLE]


def test_a_teacher_of_other_classes_is_another_teacher(tmp_path: Path) -> None:
    words = _parquet(tmp_path, [0, 1, 2, 0])
    assert pretrain.main(tiny_overrides(tmp_path, *words)) == 0
    assert train.main(tiny_overrides(tmp_path, *words, "data.num_classes=9")) == 0
    teachers = [read_about(path)["num_classes"] for path in tmp_path.glob("runs/teachers/*/teacher.safetensors")]
    assert sorted(teachers) == [3, 9]

    _parquet(tmp_path, [0, 1, 2, 3])  # the same folder has one class more
    (problem,) = _problems(tmp_path, "train", *words)
    assert isinstance(problem, ConfigError)
    assert problem.key == "data.root"
    assert "1x8x8 in 4 classes; the teacher in " in problem.problem
    assert "was trained on those of 1x8x8 in 3 classes; remove that folder" in problem.problem
    assert _problems(tmp_path, "pretrain", *words) == []


def test_a_dry_run_knows_what_a_name_is_taken_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path, "name=mine", "loss.beta=1")
    run_directory(config, "train").begin("train", config, None)
    assert _dry_run(tmp_path, "name=mine", "loss.beta=2") == 2
    assert "holds a run with other settings (loss.beta)" in capsys.readouterr().err
    assert _dry_run(tmp_path, "name=mine", "loss.beta=2", "--fresh") == 0
