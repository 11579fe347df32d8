"""Where people's folders have their splits: as clones, converters and ImageFolder lay them out."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.images import png, write_parquet
from zskt_dist.config.inputs import Data
from zskt_dist.data.classes import class_names, names_to_order
from zskt_dist.data.images import SplitName
from zskt_dist.data.user_images import UserImages
from zskt_dist.errors import ConfigError

TEST, TRAIN = 10, 200
"""Levels of gray of the images of each split."""


def _shard(path: Path, *levels: int) -> None:
    write_parquet(path, [png(np.full((2, 2), level, np.uint8)) for level in levels], [0] * len(levels))


def _file(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(np.full((2, 2), level, np.uint8)))


def _levels(images: UserImages, split: SplitName) -> list[int]:
    return [int(level) for level in images.read(split).images[:, 0, 0, 0]]


def _refused(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        UserImages(root)
    assert caught.value.key == "data.root"
    assert "\n" not in str(caught.value)
    return caught.value.problem


SHARDS = {
    "folder": ("train-0.parquet", "test-0.parquet"),
    "one file each": ("train.parquet", "test.parquet"),
    "clone of a Hub repository": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001-0123abcd.parquet"),
    "clone with a named configuration": ("plain_text/train-00000-of-00001.parquet", "plain_text/test-0.parquet"),
    "conversion by the Hub": ("default/train/0000.parquet", "default/test/0000.parquet"),
    "conversion of a named configuration": ("mnist/train/0000.parquet", "mnist/test/0000.parquet"),
    "folders of shards": ("train/0000.parquet", "test/0000.parquet"),
    "training": ("training-0.parquet", "test-0.parquet"),
}


@pytest.mark.parametrize("layout", SHARDS)
def test_shards(tmp_path: Path, layout: str) -> None:
    train, test = SHARDS[layout]
    _shard(tmp_path / train, TRAIN, TRAIN + 1)
    _shard(tmp_path / test, TEST)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    images = UserImages(tmp_path)
    assert (_levels(images, "train"), _levels(images, "test")) == ([TRAIN, TRAIN + 1], [TEST])
    assert images.files == f"test images: {test}; train images: {train}"
    assert images.notes == ()


def test_several_shards_are_said_to_be_several(tmp_path: Path) -> None:
    for part in range(3):
        _shard(tmp_path / "data" / f"test-0000{part}-of-00003.parquet", TEST + part)
    images = UserImages(tmp_path)
    assert _levels(images, "test") == [10, 11, 12]
    assert images.files == "test images: data/test-00000-of-00003.parquet and 2 more"


@pytest.mark.parametrize("name", ["validation-00000-of-00001.parquet", "data/valid-0.parquet", "default/val/0.parquet"])
def test_validation_stands_for_a_test_split_that_is_not_there(tmp_path: Path, name: str) -> None:
    _shard(tmp_path / name, TEST)
    images = UserImages(tmp_path)
    assert _levels(images, "test") == [TEST]
    split = name.removeprefix("data/").removeprefix("default/").replace("/", "-").split("-")[0]
    assert images.notes == (("images", f"there is no test split, {split} stands for it"),)
    _shard(tmp_path / name.replace(split, "test"), TEST + 1)
    assert _levels(UserImages(tmp_path), "test") == [TEST + 1], "the test split goes first"


@pytest.mark.parametrize("base", [".", "data"])
@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_class_folders(tmp_path: Path, base: str, test: str) -> None:
    for name in ("b/1.PNG", "a/2.png", "a/deeper/3.png"):
        _file(tmp_path / base / test / name, TEST + int(Path(name).stem))
    _file(tmp_path / base / "train" / "b" / "x.png", TRAIN)
    (tmp_path / base / "train" / "a").mkdir()
    for rubbish in ("test/.DS_Store", "test/a/Thumbs.db", "test/a/._2.png", "test/.ipynb_checkpoints/2.png"):
        path = tmp_path / base / rubbish.replace("test", test)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    images = UserImages(tmp_path)
    assert _levels(images, "test") == [12, 13, 11]
    assert images.read("test").labels.tolist() == [0, 0, 1]
    assert images.read("train").labels.tolist() == images.read_labels("train").tolist() == [1]
    assert images.class_names == ["a", "b"]
    place = "" if base == "." else f"{base}/"
    assert (
        images.files == f"test images: 2 class folders in {place}{test}; train images: 2 class folders in {place}train"
    )
    stands_in = [("images", f"there is no test split, {test} stands for it")] if test != "test" else []
    assert images.notes[:-1] == tuple(stands_in)
    assert images.notes[-1][0] == "labels"
    assert images.notes[-1][1].startswith("a is 0, b is 1 (")


def test_a_folder_of_class_folders_is_a_test_split(tmp_path: Path) -> None:
    for label in ("10", "9", "0"):
        _file(tmp_path / label / "x.png", int(label))
    images = UserImages(tmp_path)
    assert images.read("test").labels.tolist() == _levels(images, "test") == [0, 10, 9]
    assert not images.has("train")
    assert images.files == "test images: 3 class folders"
    assert images.notes == (("labels", "0 is 0, 9 is 9, 10 is 10 (by number, not as text)"),)


def test_links_to_class_folders(tmp_path: Path) -> None:
    """To rename or reorder classes without copying an image."""
    _file(tmp_path / "origin" / "cat" / "x.png", TEST)
    (tmp_path / "mine" / "test").mkdir(parents=True)
    for label in ("0", "3"):
        (tmp_path / "mine" / "test" / label).symlink_to(tmp_path / "origin" / "cat")
    assert UserImages(tmp_path / "mine").read_labels("test").tolist() == [0, 3]


def test_a_class_without_images_is_a_class(tmp_path: Path) -> None:
    for label in ("ape", "cow"):
        _file(tmp_path / "test" / label / "x.png", TEST)
    (tmp_path / "test" / "bee").mkdir()
    images = UserImages(tmp_path, 3)
    assert images.class_names == ["ape", "bee", "cow"]
    assert images.read_labels("test").tolist() == [0, 2]


def test_a_damaged_image_is_named_by_its_file(tmp_path: Path) -> None:
    _file(tmp_path / "test" / "cat" / "1.png", TEST)
    (tmp_path / "test" / "cat" / "2.png").write_bytes(b"no image")
    assert _refused(tmp_path) == "test/cat/2.png cannot be decoded: it is no image that Pillow reads"


def test_what_is_no_layout(tmp_path: Path) -> None:
    assert _refused(tmp_path / "nowhere") == "no such folder"
    assert _refused(tmp_path).endswith("; there is nothing")
    _shard(tmp_path / "tests.parquet", TEST)
    assert _refused(tmp_path / "tests.parquet") == "is a file; give its folder"
    words = _refused(tmp_path)
    assert words.startswith("has no test images: no test-*.parquet, test.parquet or test/CLASS/IMAGE.png, ")
    assert words.endswith("there is tests.parquet")


def test_train_images_alone_are_no_test_images(tmp_path: Path) -> None:
    _file(tmp_path / "train" / "cat" / "1.png", TRAIN)
    assert "has no test images" in _refused(tmp_path)
    assert _refused(tmp_path).endswith("there is train")


def test_a_link_to_a_folder_that_it_lies_in_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        _file(tmp_path / "test" / name / "1.png", TEST)
    (tmp_path / "test" / "cat" / "up").symlink_to("..")
    assert "is a link to a folder that it lies in; remove it" in _refused(tmp_path)
    (tmp_path / "test" / "cat" / "up").unlink()
    (tmp_path / "test" / "dog" / "cats").symlink_to("../cat")
    assert len(UserImages(tmp_path).read("test").labels) == 3


def test_images_in_no_class_folder_have_no_label(tmp_path: Path) -> None:
    _file(tmp_path / "test" / "1.png", TEST)
    assert _refused(tmp_path).startswith("test/1.png lies in no class folder, so its label is not known; to measure")
    _file(tmp_path / "test" / "cat" / "1.png", TEST)
    assert _refused(tmp_path).startswith("test/1.png lies in no class folder, so its label is not known; to measure")


def test_one_class_folder_is_one(tmp_path: Path) -> None:
    _file(tmp_path / "test" / "0" / "x.png", TEST)
    assert UserImages(tmp_path).files == "test images: 1 class folder in test"


def test_a_folder_too_far_up(tmp_path: Path) -> None:
    for label in ("ape", "cow"):
        _file(tmp_path / "zoo" / label / "x.png", TEST)
    words = "has one class folder, zoo; give the folder that holds the class folders, or test/"
    assert _refused(tmp_path) == words
    for name in ("one", "two"):
        _shard(tmp_path / "hub" / name / "test-0.parquet", TEST)
    assert _refused(tmp_path / "zoo" / "ape").startswith(
        "has images and no class folders; their labels are not known: sort them into one folder for each class, or"
    )
    assert _refused(tmp_path / "hub") == "has several data sets, one, two; give the folder of one of them"


def test_a_clone_without_its_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test-0.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    pointer = "but a pointer of Git LFS: `git lfs pull` fetches it"
    assert _refused(tmp_path) == f"test-0.parquet is no Parquet file, {pointer}"


def test_class_folders_as_the_library_datasets_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    for split, level in (("train", TRAIN), ("test", TEST)):
        for place, label in enumerate(("cow", "Ant", "bee")):
            _file(tmp_path / "zoo" / split / label / f"{place}.png", level + place)
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "zoo"), cache_dir=str(tmp_path / "cache"))
    ours = UserImages(tmp_path / "zoo")
    assert ours.class_names == theirs["test"].features["label"].names
    for split in ("train", "test"):
        pairs = sorted((int(np.asarray(row["image"])[0, 0]), row["label"]) for row in theirs[split])
        images, labels = ours.read(split)
        assert sorted(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True)) == pairs


def test_names_are_put_in_order_by_the_user(tmp_path: Path) -> None:
    for level, name in enumerate(("zero", "one", "two")):
        _file(tmp_path / "test" / name / "1.png", level)
    data = Data(name="parquet", root=str(tmp_path))
    assert names_to_order(data, 3) == ["one", "two", "zero"]
    stated = ("zero", "one", "two")
    assert UserImages(tmp_path, 3, stated).read("test").labels.tolist() == [1, 2, 0]
    assert class_names(data.model_copy(update={"class_names": stated}), 3) == [*stated]


def test_numbers_are_no_names_to_put_in_order(tmp_path: Path) -> None:
    for number in ("0", "1"):
        _file(tmp_path / "test" / number / "1.png", TEST)
    assert names_to_order(Data(name="parquet", root=str(tmp_path)), 2) is None
    assert names_to_order(Data(name="digits"), 10) is None
