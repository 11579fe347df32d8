"""What cannot work is said before anything is trained."""

from pathlib import Path

import pytest
from torch import nn

from tests.support.configs import tiny_config
from tests.support.images import png, write_parquet
from zskt_dist.data import sources
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.launch.plan import problems
from zskt_dist.models import ImageShape, build_network
from zskt_dist.runtime.attention import Attention, tap_pair
from zskt_dist.runtime.job import Job
from zskt_dist.runtime.weights import save_weights


def _problems(folder: Path, command: str, *overrides: str) -> list[UserError]:
    return list(problems(Job.plan(command, tiny_config(folder, *overrides))))


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
    pixels = [png(sources._read_digits("test").images[i, 0].numpy()) for i in range(4)]
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-0.parquet", pixels, [0, 0, 1, 0])
    config = tiny_config(tmp_path, "data.name=parquet", f"data.root={tmp_path}")
    dataset = sources.open_dataset(config)
    monkeypatch.setattr("zskt_dist.data.parquet.Image.open", None)
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
