"""The images on which an int8 network is compared."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.configs import tiny_config
from zskt_dist.evaluation.held_out import snapshot_path
from zskt_dist.export.pseudo_images import pseudo_images
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_generator
from zskt_dist.networks.weights import save_weights
from zskt_dist.streams import Purpose, normal, stream

SHAPE = ImageShape(1, 8, 8)


@pytest.mark.parametrize(("micro_batch", "sizes"), [("null", [8, 2]), ("4", [4, 4, 2])])
def test_images_are_normalised_together_as_in_training(tmp_path: Path, micro_batch: str, sizes: list[int]) -> None:
    config = tiny_config(tmp_path, "evaluation.held_out_images=10", f"engine.micro_batch={micro_batch}")
    generator = new_generator(config, SHAPE)
    for iteration in (5, 10):
        save_weights(snapshot_path(tmp_path, iteration), generator, {})
    subject: Any = SimpleNamespace(config=config, image_shape=SHAPE, directory=SimpleNamespace(snapshots=tmp_path))
    found = list(pseudo_images(subject))
    assert [len(images) for images in found] == 2 * sizes
    for number in range(2):
        whole = sizes[0] * len(sizes)  # also the last batch, of which the first two images are kept
        z = torch.from_numpy(normal(stream(config.seed, Purpose.HELD_OUT, number), whole, config.generator.z_dim))
        expected = torch.cat([generator(part) for part in z.split(sizes[0])])[:10]
        assert torch.allclose(torch.cat(found[number * len(sizes) :][: len(sizes)]), expected, atol=1e-6)
    assert not any(images.requires_grad for images in found)


def test_a_run_without_snapshots_has_none(tmp_path: Path) -> None:
    directory = SimpleNamespace(snapshots=tmp_path)
    subject: Any = SimpleNamespace(config=tiny_config(tmp_path), image_shape=SHAPE, directory=directory)
    assert list(pseudo_images(subject)) == []
