import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.images import random_dataset
from zskt_dist.data import ImageDataset, TrainingBatches, balanced_subset
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError

CPU = torch.device("cpu")


def _labels(batches: TrainingBatches, iterations: range) -> list[int]:
    return [label for iteration in iterations for label in batches(iteration)[1].tolist()]


@pytest.mark.parametrize("augmentation", ["none", "crop", "crop_flip"])
@pytest.mark.parametrize("size", [2, 4])
def test_workers_share_the_global_batch(size: int, augmentation: str) -> None:
    """Order, shifts and flips are those of one worker, to the last bit; across the end of an epoch too."""
    dataset = random_dataset(20, (3, 16, 16), augmentation=augmentation)
    alone = TrainingBatches(dataset, 8, 3, CPU)
    workers = [TrainingBatches(dataset, 8, 3, CPU, World(CPU, rank, size).part(8)) for rank in range(size)]
    for iteration in (0, 1, 2, 3, 17):
        x, label = alone(iteration)
        parts = [worker(iteration) for worker in workers]
        assert all(len(part[1]) == 8 // size for part in parts)
        assert torch.equal(torch.cat([part[0] for part in parts]), x)
        assert torch.equal(torch.cat([part[1] for part in parts]), label)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (10, 5), (12, 7), (9, 20)])
def test_every_image_once_per_epoch(count: int, batch_size: int) -> None:
    """Epochs follow one another without a gap: no image is left out where the batch does not divide them."""
    batches = TrainingBatches(random_dataset(count, (1, 2, 2)), batch_size, 0, CPU)
    drawn = _labels(batches, range(count))  # count * batch_size places are whole epochs
    epochs = [drawn[start : start + count] for start in range(0, len(drawn), count)]
    assert len(epochs) == batch_size
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # each in an order of its own


def test_order_depends_on_the_seed_alone() -> None:
    dataset = random_dataset(50, (1, 2, 2))
    batches = TrainingBatches(dataset, 10, 4, CPU)
    in_order = _labels(batches, range(8))
    again = TrainingBatches(dataset, 10, 4, CPU)
    backwards = [again(iteration)[1].tolist() for iteration in reversed(range(8))]
    assert [label for batch in reversed(backwards) for label in batch] == in_order
    assert _labels(TrainingBatches(dataset, 10, 5, CPU), range(8)) != in_order
    # The order of places is that of the epoch, whatever the size of a batch.
    assert _labels(TrainingBatches(dataset, 20, 4, CPU), range(4)) == in_order


def test_order_is_a_fair_shuffle() -> None:
    """How often image i is at place j, over 600 epochs of 6: expected 100, standard deviation 9.1."""
    batches = TrainingBatches(random_dataset(6, (1, 1, 1)), 6, 0, CPU)
    counts = np.zeros((6, 6))
    for epoch in range(600):
        counts[batches(epoch)[1].numpy(), np.arange(6)] += 1
    assert (counts.sum(axis=1) == 600).all()
    assert np.abs(counts - 100).max() < 45


def test_images_belong_to_labels_and_are_normalised() -> None:
    dataset = random_dataset(9, (2, 3, 4), statistics=((0.1, 0.2), (0.5, 0.25)))
    x, label = TrainingBatches(dataset, 4, 0, CPU)(1)
    assert x.dtype == torch.float32
    assert label.dtype == torch.int64
    for image, position in zip(x, label, strict=True):
        pixels = dataset.train.images[position].double() / 255
        for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25))):
            expected = (pixels[channel] - mean) / std
            torch.testing.assert_close(image[channel].double(), expected, rtol=1e-5, atol=2e-6)


def _found(dataset: ImageDataset, image: Tensor, original: Tensor, margin: int) -> list[tuple[int, int, bool]]:
    """By trying all: shifts and flips of the original, with black moved in, that give this image."""
    _, height, width = original.shape
    found = []
    for top in range(2 * margin + 1):
        for left in range(2 * margin + 1):
            canvas = torch.zeros(original.shape[0], height + 2 * margin, width + 2 * margin, dtype=torch.uint8)
            canvas[:, margin : margin + height, margin : margin + width] = original
            window = canvas[:, top : top + height, left : left + width]
            for flipped in (False, True):
                candidate = dataset.standardise(CPU)((window.flip(2) if flipped else window)[None])[0]
                if torch.equal(candidate, image):
                    found.append((top - margin, left - margin, flipped))
    return found


@pytest.mark.parametrize(
    ("augmentation", "shape", "margin"),
    [("crop", (1, 16, 16), 2), ("crop_flip", (3, 16, 16), 2), ("crop_flip", (1, 8, 8), 1), ("crop", (1, 6, 16), 2)],
    ids=str,
)
def test_augmentation_against_a_slow_loop(augmentation: str, shape: tuple[int, int, int], margin: int) -> None:
    dataset = random_dataset(40, shape, augmentation=augmentation)
    batches = TrainingBatches(dataset, 80, 1, CPU)
    seen = []
    for iteration in range(3):
        for image, label in zip(*batches(iteration), strict=True):
            found = _found(dataset, image, dataset.train.images[label], margin)
            assert len(found) == 1  # one explanation, and only one
            seen += found
    shifts = 2 * margin + 1
    for axis in (0, 1):
        counts = np.bincount([move[axis] + margin for move in seen], minlength=shifts)
        expected = 240 / shifts
        assert np.abs(counts - expected).max() < 4.5 * expected**0.5
    flips = sum(move[2] for move in seen)
    assert (abs(flips - 120) < 35) if augmentation == "crop_flip" else flips == 0  # standard deviation 7.7
    vertical, horizontal, mirrored = (np.array([move[i] for move in seen], dtype=float) for i in range(3))
    pairs = [(vertical, horizontal)] + [(vertical, mirrored), (horizontal, mirrored)] * (flips > 0)
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.3 for a, b in pairs)  # independent: standard error 0.065


def test_margin_of_cifar_is_four_pixels() -> None:
    dataset = random_dataset(64, (1, 32, 32), augmentation="crop")
    x, label = TrainingBatches(dataset, 64, 0, CPU)(0)
    moves = [_found(dataset, x[i], dataset.train.images[label[i]], 4) for i in range(12)]
    assert all(len(move) == 1 for move in moves)
    assert max(abs(shift) for move in moves for shift in move[0][:2]) > 2


def test_augmentation_differs_between_iterations_and_epochs() -> None:
    dataset = random_dataset(4, (1, 16, 16), augmentation="crop_flip")
    batches = TrainingBatches(dataset, 4, 0, CPU)
    first, second = ({int(label): image for image, label in zip(*batches(i), strict=True)} for i in (0, 1))
    assert any(not torch.equal(first[label], second[label]) for label in range(4))
    assert torch.equal(batches(1)[0], TrainingBatches(dataset, 4, 0, CPU)(1)[0])


def test_the_data_set_is_not_changed() -> None:
    dataset = random_dataset(8, (1, 16, 16), augmentation="crop_flip")
    before = dataset.train.images.clone()
    TrainingBatches(dataset, 8, 0, CPU)(0)
    assert torch.equal(dataset.train.images, before)


LABELS = torch.tensor([2, 0, 1, 2, 2, 0, 1, 1, 0, 2, 1, 0])


def test_a_balanced_subset_has_m_of_every_class_and_another_seed_others() -> None:
    chosen = balanced_subset(LABELS, 3, 2, seed=0)
    assert sorted(LABELS[chosen].tolist()) == [0, 0, 1, 1, 2, 2]
    assert len(set(chosen.tolist())) == 6
    assert np.array_equal(chosen, balanced_subset(LABELS, 3, 2, seed=0))
    assert len({tuple(balanced_subset(LABELS, 3, 2, seed=seed).tolist()) for seed in range(8)}) > 4
    assert np.array_equal(balanced_subset(LABELS, 3, 4, seed=5), np.arange(12))


def test_more_images_than_a_class_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.images_per_class=5: class 0 has 4 training images"):
        balanced_subset(LABELS, 3, 5, seed=0)


def test_batches_of_a_subset_are_of_its_images_only() -> None:
    """Also where it is smaller than a batch: then its images come again, each as often as the others."""
    dataset = random_dataset(20, (1, 2, 2))
    indices = np.array([3, 7, 11])
    x, _ = TrainingBatches(dataset, 6, 0, CPU, indices=indices)(0)
    images = dataset.standardise(CPU)(dataset.train.images[indices])
    counts = [(x == image).flatten(1).all(1).sum().item() for image in images]
    assert counts == [2, 2, 2]
