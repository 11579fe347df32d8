"""The pool: what is drawn, what is kept, and its files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zskt_dist.data import Standardise
from zskt_dist.data.pool import VIEW_BYTES, Pool, PoolFiles
from zskt_dist.errors import UserError

CPU = torch.device("cpu")
IMAGE_BYTES = 16 + VIEW_BYTES + 16
"""Of an image of 4x4 with one view and two logits in float64."""
PLAIN = Standardise((0.0,), (1 / 255,), CPU)  # bytes as they are


def _images(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def _pool(part: slice = slice(None), **settings: Any) -> Pool:
    return Pool(PLAIN, 10, 0, CPU, part, **{"size": 100, **settings})


def _sums(x: Tensor) -> Tensor:
    """In place of a teacher's logits: the sum of all pixels and its square, [B, 2]."""
    total = x.double().sum(dim=(1, 2, 3))
    return torch.stack([total, total.square()], dim=1)


def test_parts_of_a_batch_make_the_whole_one_and_each_iteration_draws_another() -> None:
    settings = {"views": 3, "margin": 1, "flip": True, "darken": 0.5}
    whole, *parts = (_pool(part, **settings) for part in (slice(None), slice(0, 3), slice(3, 10)))
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    for pool in (whole, *parts):
        pool.add(images, _sums)
    batches = [whole(iteration) for iteration in range(4)]
    for iteration, batch in enumerate(batches):
        for found, expected in zip(zip(*(pool(iteration) for pool in parts), strict=True), batch, strict=True):
            assert torch.equal(torch.cat(found), expected)
    assert not torch.equal(batches[0][0], batches[1][0])


def test_every_image_is_drawn_equally_often() -> None:
    pool = _pool()
    pool.add(_images(0, 50), _sums)
    pool.add(_images(100, 150), _sums)
    drawn = torch.cat([pool(iteration)[0] for iteration in range(400)])[:, 0, 0, 0].round()
    counts = [(drawn == value).sum().item() for value in (0, 50, 100, 150)]
    assert sum(counts) == 4000
    assert all(abs(count - 1000) < 5 * (1000 * 0.75) ** 0.5 for count in counts)


def test_shifts_bring_black_in_and_reach_every_place() -> None:
    pool = _pool(views=50, margin=1)
    pool.add(_images(255), _sums)
    x = torch.cat([pool(iteration)[0] for iteration in range(20)])
    black = {(bool((each[0, 0] == 0).all()), bool((each[0, :, 0] == 0).all())) for each in x}
    assert black == {(True, True), (True, False), (False, True), (False, False)}
    assert set(x.round().unique().tolist()) == {0.0, 255.0}


def test_mirrored_images_are_about_half() -> None:
    pool = _pool(views=400, flip=True)
    pool.add(torch.tensor([[0, 1], [0, 1]], dtype=torch.uint8).view(1, 1, 2, 2), _sums)
    left = torch.cat([pool(iteration)[0] for iteration in range(100)])[:, 0, 0, 0]
    assert 400 < left.round().sum().item() < 600


def test_answers_are_those_to_the_views_that_are_drawn() -> None:
    asked: list[int] = []

    def ask(x: Tensor) -> Tensor:
        asked.append(len(x))
        return _sums(x)

    pool = _pool(views=3, margin=2, flip=True)
    torch.manual_seed(0)
    for _ in range(2):
        pool.add(torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8), ask)
    for iteration in range(20):
        x, logits = pool(iteration)
        torch.testing.assert_close(logits, _sums(x))
    assert asked == [15, 15], "the teacher is asked once for each view"


def test_a_pool_draws_from_all_views_of_an_image() -> None:
    pool = _pool(views=6, margin=3)
    pool.add(torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4), _sums)
    seen = {tuple(x.flatten().round().tolist()) for iteration in range(30) for x in pool(iteration)[0]}
    assert 4 <= len(seen) <= 6


def test_every_other_view_is_darkened_by_at_most_that_share() -> None:
    pool = _pool(views=400, darken=0.6)
    pool.add(_images(200), _sums)
    pixels = torch.cat([pool(iteration)[0] for iteration in range(100)])[:, 0]
    assert torch.equal(pixels.amin((1, 2)), pixels.amax((1, 2))), "all pixels of an image alike"
    values = pixels[:, 0, 0]
    bright = values > 199.9
    assert 400 < bright.sum().item() < 600
    dark = values[~bright]
    assert 80 <= dark.min().item() < 90
    assert 130 < dark.mean().item() < 150, "evenly from 80 to 200"


def test_the_oldest_images_leave_first() -> None:
    pool = _pool(capacity=3 * IMAGE_BYTES + IMAGE_BYTES - 1)
    kept = []
    for values in ((1, 2), (3, 4), (5,), (6, 7, 8, 9)):
        pool.add(_images(*values), _sums)
        kept.append(pool.newest()[:, 0, 0, 0].tolist())
    assert kept == [[1, 2], [2, 3, 4], [3, 4, 5], [7, 8, 9]]
    assert pool.newest(2)[:, 0, 0, 0].tolist() == [8, 9]
    for iteration in range(5):
        x, logits = pool(iteration)
        assert set(x[:, 0, 0, 0].round().tolist()) == {7.0, 8.0, 9.0}
        torch.testing.assert_close(logits, _sums(x))
    tiny = _pool(capacity=1)
    tiny.add(_images(1, 2), _sums)
    assert tiny.newest()[:, 0, 0, 0].tolist() == [2], "one image is always kept"


def test_a_pool_takes_no_more_memory_than_the_images_of_a_run_need() -> None:
    pool = _pool(size=4)
    pool.add(_images(1, 2), _sums)
    assert len(pool) == 2
    pool.add(_images(3, 4), _sums)
    pool.add(_images(5), _sums)
    assert pool.newest()[:, 0, 0, 0].tolist() == [2, 3, 4, 5]


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
