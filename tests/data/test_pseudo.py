"""Shards of pseudo-data: what is in them, how damage shows, and the batches that are drawn from them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.support.pseudo import about_pseudo_data, random_pseudo, write_pseudo_data
from zskt_dist.data.pseudo import PseudoBatches, PseudoData
from zskt_dist.data.pseudo_shards import Pseudo, read_shard, shard_range
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape

SHAPE = ImageShape(1, 8, 8)
CPU = torch.device("cpu")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = write_pseudo_data(tmp_path)
    data = PseudoData.open(str(tmp_path))
    data.check(SHAPE, 10, ((0.3054,), (0.376,)))
    pixels, logits = data.read()
    assert (pixels.dtype, logits.dtype) == (torch.float16, torch.float32)
    assert np.array_equal(pixels.numpy(), written.pixels)
    assert np.array_equal(logits.numpy(), written.logits)
    assert data.nbytes == pixels.nbytes + logits.nbytes


def test_the_columns_are_those_of_the_docs(tmp_path: Path) -> None:
    written = write_pseudo_data(tmp_path, image_shape=[3, 4, 6])
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    table = pq.read_table(tmp_path)
    assert {field.name: str(field.type) for field in table.schema} == {
        "image": "struct<bytes: binary, path: string>",
        "pixels": "fixed_size_list<element: halffloat>[72]",
        "teacher_logits": "fixed_size_list<element: float>[10]",
        "label": "int64",
        "source": "int32",
        "index": "int64",
    }
    assert table["label"].to_pylist() == [row.tolist().index(row.max()) for row in written.logits]
    assert table["index"].to_pylist() == list(range(20))
    for row, pixels in zip(table["image"].to_pylist(), written.pixels.astype(np.float64), strict=True):
        shown = np.asarray(Image.open(io.BytesIO(row["bytes"]))).astype(int)
        for channel, (mean, std) in enumerate(((0.5, 0.25), (0.4, 0.2), (0.3, 0.3))):
            expected = np.clip(255 * (pixels[channel] * std + mean), 0, 255)
            assert np.abs(shown[:, :, channel] - expected).max() < 0.51
    assert json.loads(table.schema.metadata[b"zskt_dist"]) == about_pseudo_data(image_shape=[3, 4, 6])


def test_hugging_face_opens_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed (extra dev)")
    written = write_pseudo_data(tmp_path / "data")
    loaded = datasets.load_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))["train"]
    assert isinstance(loaded.features["image"], datasets.Image)
    assert isinstance(loaded.features["label"], datasets.ClassLabel)
    assert loaded.features["label"].names == [str(label) for label in range(10)]
    assert loaded[3]["image"].size == (8, 8)
    arrays = loaded.with_format("numpy", columns=["pixels", "teacher_logits"])[:]
    assert np.array_equal(arrays["pixels"].reshape(20, 1, 8, 8), written.pixels)
    assert np.array_equal(arrays["teacher_logits"], written.logits)


def test_images_of_other_than_one_or_three_channels_have_no_picture(tmp_path: Path) -> None:
    write_pseudo_data(tmp_path, image_shape=[2, 4, 4])
    assert pq.read_table(tmp_path).schema.names[0] == "pixels"
    assert PseudoData.open(str(tmp_path)).read()[0].shape == (20, 2, 4, 4)


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Wherever it is: what is read is what was written, or nothing."""
    about = about_pseudo_data(images=8)
    write_pseudo_data(tmp_path, images=8)
    path = tmp_path / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    table = read_shard(path, about, 0)
    noticed = 0
    places = range(0, len(whole), 11)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        found = read_shard(path, about, 0)
        noticed += found is None
        assert found is None or found.equals(table)
    assert noticed > 0.5 * len(places), "most of the file is data"


@pytest.mark.parametrize("change", [{"seed": 1}, {"images": 21}, {"teacher": {"arch": "lenet", "sha256": "d"}}])
def test_a_shard_of_another_set_is_none_of_this_one(tmp_path: Path, change: dict[str, Any]) -> None:
    write_pseudo_data(tmp_path)
    path = tmp_path / "train-00001-of-00003.parquet"
    assert read_shard(path, about_pseudo_data(version="another"), 1) is not None
    assert read_shard(path, about_pseudo_data(**change), 1) is None
    assert read_shard(path, about_pseudo_data(), 0) is None, "it is number 1"


def test_shards_of_an_earlier_version_are_of_algorithm_1_and_of_no_given_images(tmp_path: Path) -> None:
    write_pseudo_data(tmp_path)
    path = tmp_path / "train-00001-of-00003.parquet"
    assert read_shard(path, about_pseudo_data(method="belief_matching", seed_images=None), 1) is not None
    assert read_shard(path, about_pseudo_data(method="inversion", seed_images=None), 1) is None


def _remove(folder: Path) -> None:
    for number in (0, 2):
        (folder / f"train-0000{number}-of-00003.parquet").unlink()


def _truncate(folder: Path) -> None:
    path = folder / "train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-10])


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _of_others(folder: Path) -> None:
    _empty(folder)
    pq.write_table(pa.table({"a": [1]}), folder / "train-00000-of-00001.parquet")


def _mix(folder: Path) -> None:
    write_pseudo_data(folder, images=9)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_remove, "train-00000-of-00003.parquet and 1 more is missing or damaged; the command that made it"),
        (_truncate, "train-00001-of-00003.parquet is missing or damaged; "),
        (_empty, "has no train-00000-of-….parquet; expected a folder that python -m zskt_dist.synthesize"),
        (_of_others, "train-00000-of-00001.parquet is damaged, or was not made by"),
        (_mix, "has shards of several sets"),
        (lambda folder: write_pseudo_data(folder, format=7), "is of format 7, and this version reads 1"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    write_pseudo_data(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConfigError) as refused:
        PseudoData.open(str(tmp_path))
    assert refused.value.key == "pseudo_data"
    assert said in str(refused.value)


@pytest.mark.parametrize("folder", ["nowhere", "s3://bucket/folder"])
def test_no_such_folder(folder: str) -> None:
    with pytest.raises(ConfigError, match="no such folder on this machine; python -m"):
        PseudoData.open(folder)


def test_damage_inside_a_shard_shows_when_it_is_read(tmp_path: Path) -> None:
    write_pseudo_data(tmp_path, image_shape=[1, 32, 32])
    path = tmp_path / "train-00001-of-00003.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    data = PseudoData.open(str(tmp_path))
    with pytest.raises(ConfigError, match=r"train-00001-of-00003.parquet is damaged; the command that made it"):
        data.read()


@pytest.mark.parametrize(
    ("shape", "classes", "mean_std", "said"),
    [
        ((3, 8, 8), 10, None, "has images of 1x8x8 in 10 classes, this run's data set of 3x8x8 in 10 classes"),
        ((1, 8, 8), 7, None, "has images of 1x8x8 in 10 classes, this run's data set of 1x8x8 in 7 classes"),
        ((1, 8, 8), 10, ((0.5,), (0.376,)), r"data.mean=\[0.5\]: differs .* use data.mean=\[0.3054\]"),
        ((1, 8, 8), 10, ((0.3054,), (0.5,)), r"data.std=\[0.5\]: differs .* use data.std=\[0.376\]"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, shape: Any, classes: int, mean_std: Any, said: str) -> None:
    write_pseudo_data(tmp_path)
    with pytest.raises(ConfigError, match=said):
        PseudoData.open(str(tmp_path)).check(ImageShape(*shape), classes, mean_std)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_of_an_epoch_are_all_images_once_in_slices(channels_last: bool) -> None:
    images = random_pseudo(about_pseudo_data(image_shape=[3, 4, 4]))
    pixels, logits = torch.from_numpy(images.pixels), torch.from_numpy(images.logits)
    parts = [slice(0, 2), slice(2, 5)]
    both = [PseudoBatches(pixels, logits, 5, 3, CPU, part, channels_last=channels_last) for part in parts]
    alone = PseudoBatches(pixels, logits, 5, 3, CPU)
    seen = []
    for iteration in range(4):
        x, targets = (torch.cat(column) for column in zip(*(each(iteration) for each in both), strict=True))
        assert x.dtype == torch.float32
        assert torch.equal(x, alone(iteration)[0])
        places = [int((pixels == image.half()).flatten(1).all(1).nonzero()) for image in x]
        assert torch.equal(targets, logits[places])
        seen += places
    assert sorted(seen) == list(range(20))
    assert seen != list(range(20)), "in another order"
    assert not torch.equal(alone(4)[0], alone(0)[0]), "and in another one in the next epoch"


def test_ranges_cover_the_images() -> None:
    assert [list(shard_range(about_pseudo_data(images=7, shard_images=3), n)) for n in range(3)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
    assert isinstance(random_pseudo(about_pseudo_data()), Pseudo)
