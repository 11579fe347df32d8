"""Making pseudo-data: images of a run's generators with the teacher's logits, in shards, shared out over the workers.

An image depends on the run's seed, its source and its place, and on nothing else: neither on the
number of workers nor on the size of the shards, and the first images of a larger set are those of
a smaller one.

Shapes: B images of a batch, S sources, z noise dimensions, C channels, H and W spatial size, K classes.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.config.inputs import is_brought
from zskt_dist.data import Standardise
from zskt_dist.data.pool import pool_files, read_round
from zskt_dist.data.pseudo_shards import (
    FORMAT,
    PATTERN,
    About,
    Pseudo,
    comparable,
    read_shard,
    shard_count,
    shard_name,
    shard_range,
    write_shard,
)
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError, Interrupted, UserError
from zskt_dist.evaluation.held_out import snapshot_path
from zskt_dist.evaluation.image_sources import normalised_together
from zskt_dist.files import read_json, remove_leftovers, write_json
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_generator, read_network
from zskt_dist.networks.weights import load_into, read_about, read_weights
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.mirror import local_file
from zskt_dist.runs.sums import read_recorded
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tasks.base import Context
from zskt_dist.tracking.local import ProgressFile
from zskt_dist.version import __version__

ABOUT_FILE = "pseudo_data.json"
"""File that describes the set of a folder before it has a shard, and marks the shards as replaceable."""
_SHARD_IMAGES = 2000


@dataclass(frozen=True)
class SynthesisOrder:
    """The pseudo-data to make from a run.

    Attributes:
        folder: Absolute path of the folder for the shards.
        images: N, number of images.
        shard_images: Images in a shard; None: about two thousand.
        sources: Iterations of the generator's snapshots that are drawn from, in equal shares; rounds of an inversion.
        fresh: True if existing shards are made anew.
        pool: True if the images are those of the run's pool, in their order; it has no generators then.
    """

    folder: str
    images: int
    shard_images: int | None
    sources: tuple[int, ...]
    fresh: bool = False
    pool: bool = False


def run(context: Context, stop: StopVote) -> None:
    order = SynthesisOrder(**context.stage.options)
    kind = PoolSynthesis if order.pool else Synthesis
    kind(context.directory, context.config, order, context.world, stop).run()


class Synthesis:
    """Writes the shards that are missing; all workers together.

    Attributes:
        method: How the run made its student without data.

    Raises:
        UserError: weights or snapshots are not there, or the folder holds something else.
    """

    method = "belief_matching"

    def __init__(
        self, directory: RunDirectory, config: Config, order: SynthesisOrder, world: World, stop: StopVote
    ) -> None:
        self.order, self.config, self.world, self.stop = order, config, world, stop
        self.directory, self.folder = directory, Path(order.folder)
        self.batch_size = normalised_together(self.config)
        self.about: About = world.from_main(self._about)  # rank 0 alone sees the run's files
        shape, classes = ImageShape(*self.about["image_shape"]), self.about["num_classes"]
        checkpoint = str(self.config.teacher.checkpoint)
        teacher = read_network(self.config, "teacher", shape, classes, checkpoint, "teacher.checkpoint", world)
        self.teacher = teacher.to(world.device).eval().requires_grad_(False)
        self._open(shape)
        self.progress = ProgressFile(self.directory.progress if world.is_main else None)

    def _open(self, shape: ImageShape) -> None:
        self.generators = {source: self._generator(source, shape) for source in self.order.sources}

    def run(self) -> None:
        """Writes the shards; a stop request raises Interrupted after the shards under way."""
        missing = self.world.from_main(partial(missing_shards, self.folder, self.about, self.order.fresh))
        total = shard_count(self.about)
        for first in range(0, len(missing), self.world.size):
            done = total - len(missing) + first
            for number in missing[first + self.world.rank :][:1]:
                made = shard_range(self.about, done).start
                self.progress.show({"iteration": made})
                self.progress.tick("images", made, self.about["images"])
                write_shard(self.folder, self.about, number, self.images(shard_range(self.about, number)))
            if self.stop.agreed() and first + self.world.size < len(missing):
                self.stop.close()
                raise Interrupted(min(done + self.world.size, total), total, "shard")
        self.stop.close()
        self.world.barrier()
        self.progress.tick("images", self.about["images"], self.about["images"])

    @torch.no_grad()
    def images(self, indices: range) -> Pseudo:
        """The images with these numbers.

        A round is a batch of each source, shuffled together: image `b S + s` of a round is number b of source s.
        """
        each = len(self.generators) * self.batch_size
        parts = []
        for number in range(indices.start // each, -(-indices.stop // each)):
            x, logits = map(torch.cat, zip(*(self._batch(source, number) for source in self.generators), strict=True))
            order = torch.arange(each).view(-1, self.batch_size).T.flatten()
            mine = order[max(0, indices.start - number * each) : indices.stop - number * each]
            sources = torch.tensor(self.order.sources, dtype=torch.int32)[mine // self.batch_size]
            parts.append((x[mine], logits[mine], sources))
        return Pseudo(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))

    def _batch(self, source: int, number: int) -> tuple[Tensor, Tensor]:
        """Batch of that number of a source, on the CPU: float16 [B, C, H, W], and the teacher's logits of it [B, K]."""
        rng = stream(self.config.seed, Purpose.PSEUDO_DATA, source, number)
        z = normal(rng, self.batch_size, self.config.generator.z_dim)
        x = self.generators[source](torch.from_numpy(z).to(self.world.device)).half()
        if not torch.isfinite(x).all():
            raise UserError(f"the generator of iteration {source} draws what is not finite; use other --sources")
        return x.cpu(), self.teacher(x.float()).float().cpu()  # logits of exactly the pixels that are saved

    def _generator(self, source: int, shape: ImageShape) -> nn.Module:
        """The generator of a snapshot, in training mode: it normalises by the statistics of the batch."""
        path = snapshot_path(self.directory.snapshots, source)
        generator = new_generator(self.config, shape)
        load_into(generator, self.world.from_main(lambda: read_weights(path, "RUN_DIR")), "RUN_DIR", path)
        return generator.to(self.world.device)

    def _files(self) -> dict[int, Path]:
        """What the images are made from, by source."""
        return {source: snapshot_path(self.directory.snapshots, source) for source in self.order.sources}

    def _about(self) -> About:
        """What the shards are made from."""
        student = read_about(self.directory.weights("student"))
        paths = {str(source): path for source, path in self._files().items()}
        checkpoint = str(self.config.teacher.checkpoint)
        teacher = checkpoint if is_brought(checkpoint) else _sha256(local_file(checkpoint, "teacher.checkpoint"))
        each = len(paths) * self.batch_size
        return {
            "format": FORMAT,
            "version": __version__,
            **{key: student[key] for key in ("image_shape", "num_classes", "mean", "std")},
            "images": self.order.images,
            "shard_images": self.order.shard_images or each * max(1, _SHARD_IMAGES // each),  # no round is cut
            "seed": self.config.seed,
            "batch_size": self.batch_size,
            "generators": {source: _sha256(path) for source, path in paths.items()},
            "method": self.method,
            "seed_images": (self.directory.finished() or {}).get("seed_images"),
            "teacher": {"arch": self.config.teacher.arch, "sha256": teacher},
        }


class PoolSynthesis(Synthesis):
    """Writes the images of a pool, in the order in which they were made."""

    method = "inversion"

    def _open(self, shape: ImageShape) -> None:
        rounds = self.world.from_main(lambda: [read_round(path) for path in self._files().values()])
        self.pool = torch.cat(rounds)
        self.sources = torch.tensor(self.order.sources, dtype=torch.int32).repeat_interleave(len(rounds[0]))
        self.standardise = Standardise(tuple(self.about["mean"]), tuple(self.about["std"]), self.world.device)

    @torch.no_grad()
    def images(self, indices: range) -> Pseudo:
        places = slice(indices.start, indices.stop)
        parts = []
        for pixels in self.pool[places].split(self.batch_size):
            x = self.standardise(pixels.to(self.world.device)).half()
            parts.append((x.cpu(), self.teacher(x.float()).float().cpu()))
        x, logits = map(torch.cat, zip(*parts, strict=True))
        return Pseudo(x.numpy(), logits.numpy(), self.sources[places].numpy())

    def _files(self) -> dict[int, Path]:
        return dict(zip(self.order.sources, pool_files(self.directory.pool), strict=True))


def missing_shards(folder: Path, about: About, fresh: bool) -> list[int]:
    """Numbers of the shards that are missing or damaged; prepares the folder for them.

    Args:
        fresh: True if existing shards are to be made anew.

    Raises:
        ConfigError: the folder holds other pseudo-data, or files of somebody else.
    """
    remove_leftovers(folder)
    before = read_json(folder / ABOUT_FILE)
    if before is None and any(folder.glob("*.parquet")):
        raise ConfigError("--out", str(folder), "holds Parquet files of something else; choose another folder")
    for name in ("README.md", "config.json"):
        if (folder / name).exists() and not (folder / ABOUT_FILE).exists():
            raise ConfigError("--out", str(folder), f"holds a {name} of something else; choose another folder")
    if before is not None and not fresh:
        keys = [key for key, value in comparable(about).items() if comparable(before).get(key) != value]
        if keys:
            problem = f"holds pseudo-data with other settings ({', '.join(keys)}); choose another folder, or --fresh"
            raise ConfigError("--out", str(folder), problem)
    if fresh:
        for path in folder.glob("*.parquet"):
            if PATTERN.fullmatch(path.name):
                path.unlink()
    write_json(folder / ABOUT_FILE, about)
    count = shard_count(about)
    return [n for n in range(count) if read_shard(folder / shard_name(n, count), about, n) is None]


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_recorded(path, "restore it, or start over with --fresh")).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
