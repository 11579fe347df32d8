import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.images import random_dataset
from zskt_dist.data import ImageDataset, Split, Standardise
from zskt_dist.models import ImageShape

CPU = torch.device("cpu")


def _split(count: int) -> Split:
    return Split(torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1), torch.arange(count) + 100)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
def test_shards_are_the_split(size: int) -> None:
    split = _split(10)
    shards = [split.shard(rank, size) for rank in range(size)]
    assert sorted(label for shard in shards for label in shard.labels.tolist()) == list(range(100, 110))
    assert max(len(shard.labels) for shard in shards) - min(len(shard.labels) for shard in shards) <= 1
    for shard in shards:
        assert (shard.images.flatten().long() + 100).tolist() == shard.labels.tolist()


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (99, [10])])
def test_batches_are_the_split_in_order(batch_size: int, sizes: list[int]) -> None:
    split = _split(10)
    batches = list(split.batches(batch_size))
    assert [len(batch.images) for batch in batches] == [len(batch.labels) for batch in batches] == sizes
    assert torch.equal(torch.cat([batch.images for batch in batches]), split.images)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), split.labels)


def test_no_batches_of_nothing() -> None:
    assert list(_split(2).shard(2, 3).batches(4)) == []


def test_normalisation() -> None:
    """CIFAR-10: every byte, in each channel, against (byte / 255 - mean) / std in double precision."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    out = Standardise(mean, std, CPU)(images)
    assert out.dtype == torch.float32
    for channel in range(3):
        expected = [(byte / 255 - mean[channel]) / std[channel] for byte in range(256)]
        assert out[1, channel].flatten().tolist() == pytest.approx(expected, rel=1e-5, abs=2e-6)
    assert out[0, 0, 0, 0].item() == pytest.approx(-2.42906574, abs=1e-6)
    assert out[0, 2, 15, 15].item() == pytest.approx(2.75373134, abs=1e-6)


def test_measured_statistics() -> None:
    """Of the train split, per channel, of pixels in [0, 1], population standard deviation, to four digits."""
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.integers(0, 256, (20, 6, 5)), rng.integers(90, 110, (20, 6, 5))], axis=1).astype(np.uint8)
    train = Split(torch.from_numpy(pixels), torch.zeros(20, dtype=torch.int64))
    test = Split(torch.zeros(3, 2, 6, 5, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    dataset = ImageDataset("two", ImageShape(2, 6, 5), 1, {"train": train, "test": test}.__getitem__)
    mean, std = dataset.mean_std
    for channel in range(2):
        values = pixels[:, channel] / 255
        assert mean[channel] == round(float(values.mean()), 4)
        assert std[channel] == round(float(values.std()), 4)
    normalised = dataset.standardise(CPU)(train.images).double()
    # Half a unit in the fourth digit, seen at a standard deviation of 0.0226.
    assert normalised.mean(dim=(0, 2, 3)).abs().max() < 5.1e-5 / std[1]
    assert (normalised.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 5.1e-5 / std[1]


def test_given_statistics_are_not_measured() -> None:
    def read(split: str) -> Split:
        raise AssertionError(f"{split} was read")

    dataset = ImageDataset("lazy", ImageShape(1, 2, 2), 10, read, statistics=((0.25,), (0.5,)))
    assert dataset.mean_std == ((0.25,), (0.5,))
    white: Tensor = dataset.standardise(CPU)(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8))
    assert white.flatten().tolist() == pytest.approx([1.5] * 4)


def test_splits_are_read_once_and_only_when_needed() -> None:
    asked: list[str] = []

    def read(split: str) -> Split:
        asked.append(split)
        return _split(3 if split == "test" else 5)

    dataset = ImageDataset("lazy", ImageShape(1, 1, 1), 10, read)
    assert asked == []
    assert len(dataset.test.labels) == len(dataset.test.images) == 3
    assert asked == ["test"]
    assert len(dataset.train.labels) == 5
    _ = dataset.mean_std, dataset.train, dataset.test
    assert asked == ["test", "train"]


@pytest.mark.parametrize("level", [0, 77, 255])
def test_images_of_one_colour_have_finite_values(level: int) -> None:
    """A channel that never changes (a blank alpha, a mask) has standard deviation 0."""
    split = Split(torch.full((4, 1, 3, 3), level, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    dataset = ImageDataset("blank", ImageShape(1, 3, 3), 1, lambda _: split)
    assert dataset.standardise(CPU)(split.images).isfinite().all()


def test_to_device_keeps_values() -> None:
    split = random_dataset(4, (1, 2, 2)).train
    moved = split.to(CPU)
    assert torch.equal(moved.images, split.images)
    assert torch.equal(moved.labels, split.labels)
