"""Small folders of pseudo-data made on the spot."""

from pathlib import Path
from typing import Any

import numpy as np

from zskt_dist.data.pseudo_shards import FORMAT, About, Pseudo, shard_count, shard_range, write_shard

MEAN_STD = {1: ([0.3054], [0.376]), 3: ([0.5, 0.4, 0.3], [0.25, 0.2, 0.3])}
"""By channels; of one channel: those of the digits."""


def about_pseudo_data(**changes: Any) -> About:
    """Of 20 images in shards of 8, of the digits' shape."""
    shape = changes.get("image_shape", [1, 8, 8])
    mean, std = MEAN_STD.get(shape[0], ([0.5] * shape[0], [0.25] * shape[0]))
    about = {"format": FORMAT, "version": "0", "image_shape": shape, "num_classes": 10, "mean": mean, "std": std}
    about |= {"images": 20, "shard_images": 8, "seed": 0, "batch_size": 4, "generators": {"5": "a", "9": "b"}}
    return about | {"teacher": {"arch": "lenet", "sha256": "c"}} | changes


def random_pseudo(about: About) -> Pseudo:
    """Normal pixels and logits."""
    rng, count = np.random.default_rng(0), about["images"]
    pixels = rng.normal(size=(count, *about["image_shape"])).astype(np.float16)
    logits = rng.normal(size=(count, about["num_classes"])).astype(np.float32)
    return Pseudo(pixels, logits, np.arange(count, dtype=np.int32) % 2)


def write_pseudo_data(folder: Path, **changes: Any) -> Pseudo:
    """What the shards hold that are written."""
    about = about_pseudo_data(**changes)
    images = random_pseudo(about)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shard_count(about)):
        rows = shard_range(about, number)
        part = slice(rows.start, rows.stop)
        write_shard(folder, about, number, Pseudo(*(column[part] for column in images)))
    return images
