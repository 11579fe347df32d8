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
from zskt_dist.data.user_images import UserImages
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
    parquet = UserImages(tmp_path)
    assert parquet.image_shape == (1, 5, 7)
    assert parquet.num_classes == 3
    for split in ("train", "test"):
        images, labels = parquet.read(split)
        assert images.dtype == torch.uint8
        assert np.array_equal(images.numpy()[:, 0], GRAY)
        assert labels.dtype == torch.int64
        assert labels.tolist() == LABELS


def test_colours(tmp_path: Path) -> None:
    parquet = UserImages(_write(tmp_path, COLOUR))
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
    images = UserImages(tmp_path).read("test").images
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), pixels)


def test_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    for part, positions in enumerate(([0, 1], [2, 3, 4], [5])):
        write_parquet(
            tmp_path / f"train-{part:05}-of-00003.parquet",
            [png(GRAY[i]) for i in positions],
            [LABELS[i] for i in positions],
        )
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [png(GRAY[0])], [0])
    images, labels = UserImages(tmp_path).read("train")
    assert np.array_equal(images.numpy()[:, 0], GRAY)
    assert labels.tolist() == LABELS


def test_file_without_number(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [png(GRAY[3])], [1])
    assert np.array_equal(UserImages(str(tmp_path)).read("train").images[0, 0].numpy(), GRAY[3])


def test_class_names_in_the_metadata(tmp_path: Path) -> None:
    """Four classes, of which the images show three."""
    assert UserImages(_write(tmp_path, metadata=HUGGING_FACE)).num_classes == 4


def test_classes_are_counted_over_both_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [png(GRAY[0])], [1])
    write_parquet(tmp_path / "train-1.parquet", [png(GRAY[0])], [6])
    write_parquet(tmp_path / "test-0.parquet", [png(GRAY[0])], [3])
    assert UserImages(tmp_path).num_classes == 7


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.root='.*nowhere': no such folder$"):
        UserImages(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["train", "test"])
def test_missing_split(tmp_path: Path, missing: SplitName) -> None:
    _write(tmp_path)
    (tmp_path / f"{missing}-00000-of-00001.parquet").unlink()
    with pytest.raises(ConfigError, match=rf"^data\.root=.*: has no {missing} images"):
        UserImages(tmp_path).read(missing)


def test_evaluation_needs_no_train_split(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    images = UserImages(tmp_path)
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
        UserImages(tmp_path)
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
    parquet = UserImages(tmp_path)
    assert len(parquet.read("test").labels) == 6
    with pytest.raises(UserError) as caught:
        parquet.read("train")
    _one_line(caught, str(tmp_path), "image 2 of train is 4x7, the first of test is 5x7; resize")


@pytest.mark.parametrize("damaged", [b"no image", b"", None, png(GRAY[0])[:40]], ids=["text", "empty", "null", "half"])
@pytest.mark.parametrize("struct", [True, False], ids=["struct", "binary"])
def test_image_that_cannot_be_decoded(tmp_path: Path, damaged: bytes | None, struct: bool) -> None:
    _write(tmp_path, struct=struct)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0]), damaged], [0, 1], struct=struct)
    with pytest.raises(UserError) as caught:
        UserImages(tmp_path).read("train")
    _one_line(caught, str(tmp_path), "image 1 of train cannot be decoded")


def test_first_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    _write(tmp_path)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [b"no image"], [0])
    with pytest.raises(UserError) as caught:
        UserImages(tmp_path)
    _one_line(caught, "image 0 of test cannot be decoded")


# What people bring: each is to be told in one line, and not to end in a traceback or in wrong labels.


def test_file_that_is_no_parquet(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError) as caught:
        UserImages(tmp_path)
    _one_line(caught, "test-00000-of-00001.parquet")


def test_empty_split(tmp_path: Path) -> None:
    _write(tmp_path)
    table = pq.read_table(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(UserError) as caught:
        UserImages(tmp_path)
    _one_line(caught, "test")


def test_splits_may_differ_in_their_columns_and_the_shards_of_one_may_not(tmp_path: Path) -> None:
    _write(tmp_path, column="img")
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0])], [0], column="image", metadata=None)
    assert np.array_equal(UserImages(tmp_path).read("train").images[0, 0].numpy(), GRAY[0])
    write_parquet(tmp_path / "test-00001-of-00002.parquet", [png(GRAY[0])], [0], column="image", metadata=None)
    with pytest.raises(UserError) as caught:
        UserImages(tmp_path)
    _one_line(caught, "test-00001-of-00002.parquet has no column img, other shards do")


@pytest.mark.parametrize("labels", [[0, None], [0, -1]], ids=["null", "negative"])
def test_images_without_a_label(tmp_path: Path, labels: list[int | None]) -> None:
    """Hugging Face marks unlabelled test images by -1."""
    _write(tmp_path, metadata=HUGGING_FACE)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0]), png(GRAY[1])], labels)
    with pytest.raises(UserError) as caught:
        UserImages(tmp_path).read("train")
    _one_line(caught, "label")


@pytest.mark.parametrize("label", [None, -1])
def test_test_images_without_a_label_beside_others(tmp_path: Path, label: int | None) -> None:
    """Said before anything else: taken for no class, they would make the networks have one too many."""
    write_parquet(tmp_path / "test-0.parquet", [png(GRAY[0]), png(GRAY[1]), png(GRAY[2])], [label, 0, 8])
    with pytest.raises(ConfigError) as caught:
        UserImages(tmp_path, 10)
    _one_line(caught, f"image 0 of test has label {label}, which stands for none; count the classes from 0")


@pytest.mark.parametrize("labels", [[], [None, None], [-1, -1]], ids=["empty", "null", "negative"])
@pytest.mark.parametrize("typed", [True, False])
def test_a_shard_without_labels_is_not_counted(tmp_path: Path, labels: list[int | None], typed: bool) -> None:
    _write(tmp_path)
    images = pa.array([{"bytes": png(GRAY[0]), "path": None} for _ in labels])
    shard = pa.table({"image": images, "label": pa.array(labels, pa.int64() if typed else None)})
    pq.write_table(shard, tmp_path / "train-00001-of-00002.parquet")
    parquet = UserImages(tmp_path)
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
        UserImages(tmp_path)
    assert caught.value.key == "data.root"
    _one_line(caught, "has no labels")


def test_label_beyond_the_named_classes(tmp_path: Path) -> None:
    _write(tmp_path, metadata=HUGGING_FACE)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(GRAY[0])], [4])
    with pytest.raises(UserError) as caught:
        UserImages(tmp_path).read("train")
    _one_line(caught, "label")


LABEL_COLUMNS = {
    "int8": pa.array([1, 0, 2], pa.int8()),
    "uint64": pa.array([1, 0, 2], pa.uint64()),
    "float": pa.array([1.0, 0.0, 2.0]),
    "half": pa.array(np.array([1, 0, 2], dtype=np.float16)),
    "numerals": pa.array(["1", "0", "2"]),
    "large text": pa.array(["b", "a", "c"], pa.large_string()),
    "dictionary in order of appearance": pa.array(["b", "a", "c"]).dictionary_encode(),
    "dictionary of numbers": pa.array([7, 6, 8]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", LABEL_COLUMNS)
def test_labels_of_any_type(tmp_path: Path, kind: str) -> None:
    write_parquet(tmp_path / "test.parquet", [png(image) for image in GRAY[:3]], LABEL_COLUMNS[kind])
    least = 6 if kind == "dictionary of numbers" else 0
    images = UserImages(tmp_path)
    assert images.read_labels("test").tolist() == [1 + least, least, 2 + least]
    assert images.read("test").labels.dtype == torch.int64


def test_shards_may_hold_their_labels_in_different_types(tmp_path: Path) -> None:
    kinds = (pa.int32(), pa.int64(), pa.float32(), pa.string(), pa.bool_())
    for part, kind in enumerate(kinds):
        labels = pa.array([0, 1]).cast(kind) if kind != pa.string() else pa.array(["0", "1"])
        write_parquet(tmp_path / f"test-{part}.parquet", [png(GRAY[0]), png(GRAY[1])], labels)
    assert UserImages(tmp_path).read_labels("test").tolist() == [0, 1] * len(kinds)


@pytest.mark.parametrize("kind", ["int64", "string"])
def test_a_missing_label_is_named_by_its_row(tmp_path: Path, kind: str) -> None:
    labels = pa.array([0, 1, None, 1]).cast(kind)
    write_parquet(tmp_path / "test.parquet", [png(image) for image in GRAY[:4]], labels)
    with pytest.raises(ConfigError, match=r"image 2 of test has label None"):
        UserImages(tmp_path).read("test")


@pytest.mark.parametrize(
    "labels",
    [pa.array([[0], [1]]), pa.array([{"a": 1}, {"a": 2}]), pa.array([b"cat", b"dog"])],
    ids=["list", "struct", "binary"],
)
def test_labels_of_no_known_type(tmp_path: Path, labels: pa.Array) -> None:
    write_parquet(tmp_path / "test.parquet", [png(GRAY[0]), png(GRAY[1])], labels)
    with pytest.raises(ConfigError) as caught:
        UserImages(tmp_path)
    _one_line(
        caught, f"column label (the label) holds {str(labels.type)[:5]}", "; give each image one number or one name"
    )


def test_splits_that_name_their_classes_differently(tmp_path: Path) -> None:
    _write(tmp_path, metadata=HUGGING_FACE)
    other = {b"huggingface": HUGGING_FACE[b"huggingface"].replace(b'"cat", "dog"', b'"dog", "cat"')}
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [png(GRAY[0])], [0], metadata=other)
    with pytest.raises(ConfigError, match="other class names in its train files than in its test files"):
        UserImages(tmp_path)


@pytest.mark.parametrize("metadata", [b"no JSON", b"[]", b'{"info": {"features": []}}', b'{"info": null}'])
def test_metadata_that_say_nothing(tmp_path: Path, metadata: bytes) -> None:
    assert UserImages(_write(tmp_path, metadata={b"huggingface": metadata})).class_names is None


def _by_path(folder: Path) -> list[str]:
    """Three images in a folder beside that of the shard, as paths from there."""
    (folder / "pictures").mkdir()
    for number in range(3):
        (folder / "pictures" / f"{number}.png").write_bytes(png(GRAY[number]))
    return [f"../pictures/{number}.png" for number in range(3)]


@pytest.mark.parametrize("kind", ["struct", "struct of a path", "text", "absolute"])
def test_images_by_path(tmp_path: Path, kind: str) -> None:
    paths = _by_path(tmp_path)
    if kind == "absolute":
        paths = [str(tmp_path / "pictures" / Path(path).name) for path in paths]
    rows = {
        "struct": [{"bytes": None, "path": path} for path in paths],
        "struct of a path": [{"path": path} for path in paths],
    }
    (tmp_path / "mine").mkdir()
    table = pa.table({"image": rows.get(kind, paths), "label": [0, 1, 2]})
    pq.write_table(table, tmp_path / "mine" / "test.parquet")
    assert np.array_equal(UserImages(tmp_path / "mine").read("test").images[:, 0].numpy(), GRAY[:3])


def test_a_path_to_nothing(tmp_path: Path) -> None:
    paths = [*_by_path(tmp_path)[:2], "https://example.org/2.png"]
    (tmp_path / "mine").mkdir()
    pq.write_table(pa.table({"image": paths, "label": [0, 1, 2]}), tmp_path / "mine" / "test.parquet")
    with pytest.raises(ConfigError) as caught:
        UserImages(tmp_path / "mine")
    assert "image 2 of test cannot be decoded: there is no file" in caught.value.problem


def test_columns_of_pixels_are_no_image_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [GRAY[0].tolist()], "label": [0]}), tmp_path / "test.parquet")
    with pytest.raises(ConfigError, match="not image files; encode each image, for example as PNG"):
        UserImages(tmp_path)


def test_damage_within_a_shard(tmp_path: Path) -> None:
    """Its schema, at the end of the file, is whole."""
    rng = np.random.default_rng(1)
    write_parquet(
        tmp_path / "test.parquet", [png(rng.integers(0, 256, (30, 30), np.uint8)) for _ in range(20)], [0] * 20
    )
    content = bytearray((tmp_path / "test.parquet").read_bytes())
    content[4:60] = bytes(56)
    (tmp_path / "test.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match=r"test\.parquet is damaged \("):
        UserImages(tmp_path).read("test")


def test_a_shard_as_the_library_datasets_reads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"bytes": None, "path": path} for path in _by_path(tmp_path)]
    rows += [{"bytes": png(image), "path": "x.png"} for image in GRAY[3:]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["owl", "cat", "ape"])})
    for row in rows[:3]:
        row["path"] = str((tmp_path / "mine" / row["path"]).resolve())
    theirs = datasets.Dataset.from_dict({"image": rows, "label": [2, 1, 0, 0, 1, 2]}, features=features)
    (tmp_path / "mine").mkdir()
    theirs.to_parquet(tmp_path / "mine" / "test.parquet")
    images = UserImages(tmp_path / "mine")
    assert images.class_names == ["owl", "cat", "ape"]
    assert np.array_equal(images.read("test").images[:, 0].numpy(), [np.asarray(each) for each in theirs["image"]])
    assert images.read_labels("test").tolist() == theirs["label"]
