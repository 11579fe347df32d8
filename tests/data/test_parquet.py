import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.support.images import png, write_parquet
from zskt_dist.data.images import SplitName
from zskt_dist.data.parquet import ParquetImages
from zskt_dist.errors import ConfigError, UserError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 2, 1, 0]
HUGGING_FACE = {
    b"huggingface": json.dumps(
        {"info": {"features": {"label": {"names": ["cat", "dog", "cow", "owl"], "_type": "ClassLabel"}}}}
    ).encode()
}


def _write(folder: Path, pixels: np.ndarray = GRAY, labels: list[int] = LABELS, **settings: object) -> Path:
    images = [png(image) for image in pixels]
    for split in ("train", "test"):
        write_parquet(folder / f"{split}-00000-of-00001.parquet", images, labels, **settings)
    return folder


@pytest.mark.parametrize("column", ["image", "img"])
@pytest.mark.parametrize("struct", [True, False], ids=["struct", "binary"])
@pytest.mark.parametrize("label_column", ["label", "fine_label"])
def test_layouts(tmp_path: Path, column: str, struct: bool, label_column: str) -> None:
    _write(tmp_path, column=column, struct=struct, label_column=label_column, row_group_size=4)
    parquet = ParquetImages(tmp_path)
    assert parquet.image_shape == (1, 5, 7)
    assert parquet.num_classes == 3
    for split in ("train", "test"):
        images, labels = parquet.read(split)
        assert images.dtype == torch.uint8
        assert np.array_equal(images.numpy()[:, 0], GRAY)
        assert labels.dtype == torch.int64
        assert labels.tolist() == LABELS


def test_colours(tmp_path: Path) -> None:
    parquet = ParquetImages(_write(tmp_path, COLOUR))
    assert parquet.image_shape == (3, 5, 7)
    images = parquet.read("test").images
    assert images.is_contiguous()
    assert np.array_equal(images.numpy(), COLOUR.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    """A flat colour that every mode can hold."""
    pixels = np.tile(np.array([255, 0, 255], dtype=np.uint8), (5, 7, 1))
    if mode == "CMYK":  # PNG has none
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert("CMYK").save(buffer, format="TIFF")
        encoded = buffer.getvalue()
    else:
        encoded = png(pixels, mode)
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-0.parquet", [encoded], [0])
    images = ParquetImages(tmp_path).read("test").images
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), pixels)


def test_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    for part, positions in enumerate(([0, 1], [2, 3, 4], [5])):
        write_parquet(
            tmp_path / f"train-{part:05}-of-00003.parquet",
            [png(GRAY[i]) for i in positions],
            [LABELS[i] for i in positions],
        )
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [png(GRAY[0])], [0])
    images, labels = ParquetImages(tmp_path).read("train")
    assert np.array_equal(images.numpy()[:, 0], GRAY)
    assert labels.tolist() == LABELS


def test_file_without_number(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [png(GRAY[3])], [1])
    assert np.array_equal(ParquetImages(str(tmp_path)).read("train").images[0, 0].numpy(), GRAY[3])


def test_class_names_in_the_metadata(tmp_path: Path) -> None:
    """Four classes, of which the images show three."""
    assert ParquetImages(_write(tmp_path, metadata=HUGGING_FACE)).num_classes == 4


def test_classes_are_counted_over_both_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [png(GRAY[0])], [1])
    write_parquet(tmp_path / "train-1.parquet", [png(GRAY[0])], [6])
    write_parquet(tmp_path / "test-0.parquet", [png(GRAY[0])], [3])
    assert ParquetImages(tmp_path).num_classes == 7


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.root='.*nowhere': no such folder$"):
        ParquetImages(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["train", "test"])
def test_missing_split(tmp_path: Path, missing: SplitName) -> None:
    _write(tmp_path)
    (tmp_path / f"{missing}-00000-of-00001.parquet").unlink()
    with pytest.raises(ConfigError, match=rf"^data\.root=.*: has no {missing}-\*\.parquet or {missing}\.parquet$"):
        ParquetImages(tmp_path).read(missing)


def test_evaluation_needs_no_train_split(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    images = ParquetImages(tmp_path)
    assert images.num_classes == 3
    assert len(images.read("test").labels) == len(LABELS)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"column": "picture"}, "no column named image or img; there are: picture, label"),
        ({"label_column": "class"}, "no column named label or labels or fine_label; there are: image, class"),
    ],
)
def test_missing_column(tmp_path: Path, columns: dict[str, str], problem: str) -> None:
    _write(tmp_path, **columns)
    with pytest.raises(ConfigError) as caught:
        ParquetImages(tmp_path)
    assert caught.value.key == "data.root"
    assert caught.value.problem == problem


def _one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_image_of_another_size(tmp_path: Path) -> None:
    _write(tmp_path)
    images = [png(GRAY[0]), png(GRAY[1]), png(GRAY[2][:4])]
    write_parquet(tmp_path / "train-00000-of-00001.parquet", images, [0, 1, 2])
    parquet = ParquetImages(tmp_path)
    assert len(parquet.read("test").labels) == 6
    with pytest.raises(UserError) as caught:
        parquet.read("train")
    _one_line(caught, str(tmp_path), "image 2 of train is (4, 7, 1)", "the others are (5, 7, 1)", "resize")


@pytest.mark.parametrize("damaged", [b"no image", b"", None, png(GRAY[0])[:40]], ids=["text", "empty", "null", "half"])
@pytest.mark.parametrize("struct", [True, False], ids=["struct", "binary"])
def test_image_that_cannot_be_decoded(tmp_path: Path, damaged: bytes | None, struct: bool) -> None:
    _write(tmp_path, struct=struct)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0]), damaged], [0, 1], struct=struct)
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path).read("train")
    _one_line(caught, str(tmp_path), "image 1 of train cannot be decoded")


def test_first_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    _write(tmp_path)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [b"no image"], [0])
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path)
    _one_line(caught, "the first test image cannot be decoded")


# What people bring: each is to be told in one line, and not to end in a traceback or in wrong labels.


def test_file_that_is_no_parquet(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path)
    _one_line(caught, "test-00000-of-00001.parquet")


def test_empty_split(tmp_path: Path) -> None:
    _write(tmp_path)
    table = pq.read_table(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path)
    _one_line(caught, "test")


def test_splits_with_different_columns(tmp_path: Path) -> None:
    _write(tmp_path, column="img")
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0])], [0], column="image", metadata=None)
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path).read("train")
    _one_line(caught, "img")


@pytest.mark.parametrize("labels", [[0, None], [0, -1]], ids=["null", "negative"])
def test_images_without_a_label(tmp_path: Path, labels: list[int | None]) -> None:
    """Hugging Face marks unlabelled test images by -1."""
    _write(tmp_path, metadata=HUGGING_FACE)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0]), png(GRAY[1])], labels)
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path).read("train")
    _one_line(caught, "label")


@pytest.mark.parametrize("labels", [[], [None, None], [-1, -1]], ids=["empty", "null", "negative"])
@pytest.mark.parametrize("typed", [True, False])
def test_a_shard_without_labels_is_not_counted(tmp_path: Path, labels: list[int | None], typed: bool) -> None:
    _write(tmp_path)
    images = pa.array([{"bytes": png(GRAY[0]), "path": None} for _ in labels])
    shard = pa.table({"image": images, "label": pa.array(labels, pa.int64() if typed else None)})
    pq.write_table(shard, tmp_path / "train-00001-of-00002.parquet")
    parquet = ParquetImages(tmp_path)
    assert parquet.num_classes == 3
    if labels:
        with pytest.raises(UserError) as caught:
            parquet.read("train")
        _one_line(caught, f"image 6 of train has label {labels[0]}")
    else:
        assert parquet.read("train").labels.tolist() == parquet.read_labels("train").tolist() == LABELS


@pytest.mark.parametrize("label", [None, -1])
def test_no_labels_at_all(tmp_path: Path, label: int | None) -> None:
    shard = pa.table({"image": [{"bytes": png(GRAY[0]), "path": None}], "label": pa.array([label], pa.int64())})
    pq.write_table(shard, tmp_path / "test-0.parquet")
    with pytest.raises(ConfigError) as caught:
        ParquetImages(tmp_path)
    assert caught.value.key == "data.root"
    _one_line(caught, "has no labels in its column label")


def test_label_beyond_the_named_classes(tmp_path: Path) -> None:
    _write(tmp_path, metadata=HUGGING_FACE)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0])], [4])
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path).read("train")
    _one_line(caught, "label")


def test_labels_that_are_words(tmp_path: Path) -> None:
    _write(tmp_path)
    for split in ("train", "test"):
        table = pa.table({"image": [{"bytes": png(GRAY[0]), "path": None}], "label": ["cat"]})
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(UserError) as caught:
        ParquetImages(tmp_path).read("train")
    _one_line(caught, "label")
