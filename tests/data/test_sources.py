import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from zskt_dist.config import load_config
from zskt_dist.data import ImageDataset, open_dataset
from zskt_dist.data.digits import read_digits
from zskt_dist.data.images import SplitName
from zskt_dist.errors import ConfigError

REAL = Path(__file__).parents[2].parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"the images beside the project, {REAL}, are not here")


def _open(*overrides: str) -> ImageDataset:
    return open_dataset(load_config(None, overrides))


def test_digits() -> None:
    dataset = _open()
    assert (dataset.image_shape, dataset.num_classes) == ((1, 8, 8), 10)
    train, test = dataset.train, dataset.test
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # of the ten classes, as scikit-learn documents
    of_train, of_test = (torch.bincount(split.labels, minlength=10).tolist() for split in (train, test))
    assert [a + b for a, b in zip(of_train, of_test, strict=True)] == counts
    assert sum(of_test) == 360
    # Every class gives its share, 360 / 1797 of it, rounded up or down: 35, 36 or 37.
    assert all(abs(got - count * 360 / 1797) < 1 for got, count in zip(of_test, counts, strict=True))
    assert train.images.dtype == torch.uint8
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)


def test_digits_of_train_and_test_are_all_and_none_is_in_both() -> None:
    from sklearn.datasets import load_digits

    dataset = _open()
    bunch = load_digits()
    known = {image.tobytes(): int(label) for image, label in zip(bunch.images, bunch.target, strict=True)}
    assert len(known) == 1797  # no two digits are alike, so an image is its own name
    found: list[bytes] = []
    for split in (dataset.train, dataset.test):
        for image, label in zip(split.images, split.labels, strict=True):
            original = (image[0].double() * 16 / 255).round().numpy()
            assert known[original.tobytes()] == label
            found.append(original.tobytes())
    assert set(found) == known.keys()
    assert len(found) == len(known)


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_are_those_that_scikit_learn_gives(split: SplitName) -> None:
    """Pixels, labels, order and split, bit for bit; the split is made anew here."""
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import train_test_split

    bunch = datasets.load_digits()
    parts = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=bunch.target)
    rows = np.sort(parts[("train", "test").index(split)])
    images, labels = read_digits(split)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.numpy()[:, 0], np.round(bunch.images[rows] * 255 / 16))
    assert np.array_equal(labels.numpy(), bunch.target[rows])


def test_digits_are_the_same_for_every_seed() -> None:
    assert torch.equal(_open("seed=0").test.images, _open("seed=5").test.images)


def test_statistics_of_digits_are_those_of_the_train_split() -> None:
    dataset = _open()
    pixels = dataset.train.images.numpy() / 255
    (mean,), (std,) = dataset.mean_std
    assert mean == pytest.approx(pixels.mean(), abs=1e-4)
    assert std == pytest.approx(pixels.std(), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("svhn", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    ],
)
def test_statistics_of_the_authors(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Facts, section 1; nothing is read for them."""
    assert _open(f"data.name={name}", "data.root=/nowhere").mean_std == (mean, std)


@pytest.mark.parametrize(
    ("overrides", "augmentation"),
    [
        (["data.name=cifar10"], "crop_flip"),
        (["data.name=svhn"], "none"),
        (["data.name=digits"], "crop"),
        (["data.name=mnist"], "crop"),
        (["data.name=cifar10", "data.augment=none"], "none"),
        (["data.name=svhn", "data.augment=crop"], "crop"),
    ],
)
def test_augmentation(overrides: list[str], augmentation: str) -> None:
    """Random crop and flip on CIFAR-10, none on SVHN (facts, section 2); digits are never mirrored by themselves."""
    assert _open(*overrides).augmentation == augmentation


def test_statistics_of_the_user() -> None:
    assert _open("data.mean=[0.5]", "data.std=[0.25]").mean_std == ((0.5,), (0.25,))
    with pytest.raises(ConfigError) as raised:
        _open("data.mean=[0.5,0.5]", "data.std=[1,1]")
    assert str(raised.value) == (
        "data.mean=[0.5, 0.5]: does not fit images of 1 channel; give one number per channel, "
        "for example data.mean=[0.5] data.std=[0.25], or null for both"
    )


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", "cifar-10-batches-py/"),
        ("svhn", "train_32x32.mat and test_32x32.mat"),
        ("mnist", "MNIST/raw/"),
        ("fashion_mnist", "FashionMNIST/raw/"),
    ],
)
def test_missing_images(tmp_path: Path, name: str, expected: str, split: str) -> None:
    dataset = _open(f"data.name={name}", f"data.root={tmp_path}")
    with pytest.raises(ConfigError) as caught:
        _ = getattr(dataset, split)
    message = str(caught.value)
    assert message.startswith(f"data.root='{tmp_path}': {name} is not there: put {expected} into it")
    assert "data.download=true" in message
    assert "data.name=parquet" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_damaged_images(tmp_path: Path) -> None:
    """A download that was cut off is not a traceback."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-images-idx3-ubyte"):
        (raw / name).write_bytes(struct.pack(">I", 2051))
    (raw / "train-labels-idx1-ubyte").write_bytes(b"")
    dataset = _open("data.name=mnist", f"data.root={tmp_path}")
    with pytest.raises(ConfigError) as caught:
        _ = dataset.test
    assert caught.value.key == "data.root"
    assert "\n" not in str(caught.value)


def test_mnist_files(tmp_path: Path) -> None:
    """Two images in the original file format (big-endian header, then bytes)."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    for prefix in ("train", "t10k"):
        images = struct.pack(">IIII", 2051, 2, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 2049, 2) + bytes([7, 4])
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(content)
            (raw / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    test = _open("data.name=mnist", f"data.root={tmp_path}").test
    assert np.array_equal(test.images.numpy()[:, 0], pixels)
    assert test.labels.tolist() == [7, 4]


@needs_real_data
def test_cifar10_test_images() -> None:
    dataset = _open("data.name=parquet", f"data.root={REAL / 'cifar10'}")
    assert (dataset.name, dataset.image_shape, dataset.num_classes) == ("cifar10", (3, 32, 32), 10)
    test = dataset.test
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.labels[:4].tolist() == [3, 8, 8, 0]  # cat, ship, ship, aeroplane
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert "train" not in vars(dataset)  # five times as large, and not asked for


@needs_real_data
def test_mnist_test_images() -> None:
    test = _open("data.name=parquet", f"data.root={REAL / 'mnist'}").test
    assert test.images.shape == (10_000, 1, 28, 28)
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert test.images.double().mean().item() / 255 == pytest.approx(0.1325, abs=5e-4)  # train: 0.1307
