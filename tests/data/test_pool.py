"""The pool: what is drawn, what is kept, and its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zskt_dist.data import Standardise, balanced_classes
from zskt_dist.data.pool import Pool, PoolFiles
from zskt_dist.errors import UserError

CPU = torch.device("cpu")
PLAIN = Standardise((0.0,), (1 / 255,), CPU)  # bytes as they are


def _images(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def _pool(part: slice = slice(None), **settings: Any) -> Pool:
    return Pool(PLAIN, 10, 0, CPU, part, **settings)


def test_parts_of_a_batch_make_the_whole_one_and_each_iteration_draws_another() -> None:
    settings = {"margin": 1, "flip": True, "mixup": 0.5}
    whole, *parts = (_pool(part, **settings) for part in (slice(None), slice(0, 3), slice(3, 10)))
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    for pool in (whole, *parts):
        pool.add(images)
    batches = [whole(iteration) for iteration in range(4)]
    for iteration, batch in enumerate(batches):
        assert torch.equal(torch.cat([pool(iteration) for pool in parts]), batch)
    assert not torch.equal(batches[0], batches[1])


def test_every_image_is_drawn_equally_often() -> None:
    pool = _pool()
    pool.add(_images(0, 50))
    pool.add(_images(100, 150))
    drawn = torch.cat([pool(iteration) for iteration in range(400)])[:, 0, 0, 0].round()
    counts = [(drawn == value).sum().item() for value in (0, 50, 100, 150)]
    assert sum(counts) == 4000
    assert all(abs(count - 1000) < 5 * (1000 * 0.75) ** 0.5 for count in counts)


def test_shifts_bring_black_in_and_reach_every_place() -> None:
    pool = _pool(margin=1)
    pool.add(_images(255))
    x = torch.cat([pool(iteration) for iteration in range(20)])
    black = {(bool((each[0, 0] == 0).all()), bool((each[0, :, 0] == 0).all())) for each in x}
    assert black == {(True, True), (True, False), (False, True), (False, False)}
    assert set(x.round().unique().tolist()) == {0.0, 255.0}


def test_mirrored_images_are_about_half() -> None:
    pool = _pool(flip=True)
    pool.add(torch.tensor([[0, 1], [0, 1]], dtype=torch.uint8).view(1, 1, 2, 2))
    left = torch.cat([pool(iteration) for iteration in range(100)])[:, 0, 0, 0]
    assert 400 < left.round().sum().item() < 600


def test_mixed_images_lie_between_two() -> None:
    pool = _pool(mixup=1.0)
    pool.add(_images(0, 200))
    x = pool(0)[:, 0, 0, 0]
    assert ((x > 1) & (x < 199)).any()
    assert x.min() >= 0
    assert x.max() <= 200.01


def test_the_oldest_images_leave_first() -> None:
    pool = _pool(capacity=3 * 16 + 15)
    pool.add(_images(1, 2))
    pool.add(_images(3, 4))
    assert pool.images[:, 0, 0, 0].tolist() == [2, 3, 4]
    tiny = _pool(capacity=1)
    tiny.add(_images(1, 2))
    assert tiny.images[:, 0, 0, 0].tolist() == [2], "one image is always kept"


def test_a_round_comes_back_from_its_file_and_damage_is_found(tmp_path: Path) -> None:
    files = PoolFiles(tmp_path)
    images = _images(1, 2, 3)
    digest = files.write(7, images)
    assert torch.equal(files.read(7, digest), images)
    path = tmp_path / "round-00007.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"round-00007\.safetensors is damaged.*--fresh"):
        files.read(7, digest)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        files.read(7, digest)
    assert PoolFiles(None).write(7, images) == digest, "without files, too"


@pytest.mark.parametrize(("count", "classes"), [(20, 10), (23, 10), (3, 10)])
def test_classes_are_balanced_and_shuffled(count: int, classes: int) -> None:
    found = balanced_classes(np.random.default_rng(0), count, classes)
    times = np.bincount(found, minlength=classes)
    assert len(found) == count
    assert times.max() - times.min() <= 1
    assert not np.array_equal(found, np.sort(found)) or count == 3
