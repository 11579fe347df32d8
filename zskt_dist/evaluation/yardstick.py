"""A teacher's yardstick: a fixed set of images made from the teacher alone, on which students are compared with it.

There is no validation set without data. Images that a student's own generator makes change with the student: they show
what it is worst at now. The yardstick is made once, with the recipe below, and never learnt from; so its images mean
the same for every student of the teacher, however it was trained.

It is an inversion of the teacher (`algorithms.inversion`) without a student: images whose statistics in front of the
teacher's normalisation layers are those of the training images, as many of each class. A teacher without such layers
has none.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from zskt_dist.algorithms.inversion import DEFAULT_WEIGHTS, Inverter, Weights, draw_batch, most_jitter
from zskt_dist.algorithms.statistics import StatisticsGap
from zskt_dist.config import Config
from zskt_dist.data import Standardise, as_bytes
from zskt_dist.data.images import sha256_of_pixels
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError
from zskt_dist.evaluation.estimates import YARDSTICK
from zskt_dist.evaluation.image_sources import ImageSource, answers
from zskt_dist.evaluation.scorer import Scorer
from zskt_dist.files import read_bytes, remove_leftovers, write_atomic
from zskt_dist.models import Generator, ImageShape, ReadLogits, Statistics
from zskt_dist.networks.weights import digest_of
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.streams import Purpose, stream
from zskt_dist.tracking.base import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a yardstick is made; another recipe makes another yardstick.

    Attributes:
        batch: Images made together.
        parts: Parts of a batch with statistics of their own, which workers share out.
        steps: Generator steps for each batch.
        warm_up: Batches before the first one that is kept.
        version: Of the code that makes the images: to be raised where it changes.
    """

    version: int = 1
    images: int = 512
    batch: int = 16
    parts: int = 1
    steps: int = 10
    warm_up: int = 84
    z_dim: int = 100
    channels: tuple[int, int] = (32, 16)
    learning_rate: float = 3e-3
    momentum: float = 0.9
    weights: Weights = DEFAULT_WEIGHTS


RECIPE = Recipe()


@dataclass(frozen=True)
class Yardstick:
    """The images of a teacher's yardstick.

    Attributes:
        images: uint8 [N, C, H, W], on the CPU.
        sha256: SHA-256 of the pixels, hex.
    """

    images: Tensor

    @property
    def sha256(self) -> str:
        return sha256_of_pixels(self.images)

    def source(self, standardise: Standardise, device: torch.device) -> ImageSource:
        """The images as a source for estimates, normalised."""

        def fixed(together: int) -> list[Tensor]:
            return [standardise(part.to(device)) for part in self.images.split(together)]

        return ImageSource(YARDSTICK, fixed=fixed)


def yardsticks(run: RunDirectory) -> Path:
    """Where the yardsticks of all teachers lie: beside the experiments of a run's `runs_dir`, on this machine."""
    return run.path.absolute().parents[1] / "teachers" / "yardsticks"


def identity(teacher: nn.Module, statistics: Statistics, recipe: Recipe = RECIPE) -> str:
    """Sixteen hex digits over all that a yardstick depends on: weights and switches, normalisation, and the recipe."""
    # Of torchvision's GoogLeNet, `transform_input` is no weight and makes another network.
    switches = [
        (name, key, value)
        for name, module in teacher.named_modules()
        for key, value in vars(module).items()
        if type(value) is bool and key != "training"
    ]
    reading = ReadLogits.on(teacher)
    about = [vars(recipe), statistics, switches, reading and reading.output, digest_of(teacher)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def find_or_make(
    folder: Path | None,
    teacher: nn.Module,
    image_shape: ImageShape,
    num_classes: int,
    statistics: Statistics,
    world: World,
    tick: Callable[[str, int, int], object] = lambda phase, done, total: None,
    recipe: Recipe = RECIPE,
) -> Yardstick | None:
    """The teacher's yardstick from `folder`, else made and kept there; all workers call it together.

    Args:
        folder: Read and written by rank 0, with a warning where it cannot be written; None: made anew each time.
        teacher: Unfolded, frozen, in eval mode, on the worker's device.
        tick: Told how far the making is.

    Returns:
        None for a teacher without normalisation layers that have running statistics.

    Raises:
        UserError: the teacher's answers are not finite.
    """
    if not StatisticsGap(teacher).layers:
        return None
    path = folder and folder / f"{identity(teacher, statistics, recipe)}-{'x'.join(map(str, image_shape))}.safetensors"
    images = world.from_main(lambda: _read(path))
    if images is None:
        images = make(teacher, image_shape, num_classes, statistics, world, tick, recipe)
        if path:
            images = world.from_main(partial(_kept, path, images))
    return Yardstick(images)


@torch.no_grad()
def agreements(
    config: Config, sources: Sequence[ImageSource], student: nn.Module, teacher: nn.Module, world: World
) -> Row:
    """`yardstick_agreement`, the share of the yardstick's images on which both predict the same class.

    And `noise_agreement` where normal noise is among the sources. All workers call it together.

    Args:
        sources: Others are passed over; without these two the answer is empty.
    """
    names = (YARDSTICK, "noise") if config.evaluation.held_out_images else (YARDSTICK,)
    found = [source for source in sources if source.name in names]
    row: Row = {}
    with averaged_statistics(student, world):
        for source, logits in answers(config, found, world, student, teacher):
            scorer = Scorer(world)
            for of_student, of_teacher in logits:
                scorer.add(of_student, of_teacher)
            row[f"{source.name}_agreement"] = scorer.score().accuracy
    return row


def make(
    teacher: nn.Module,
    image_shape: ImageShape,
    num_classes: int,
    statistics: Statistics,
    world: World,
    tick: Callable[[str, int, int], object],
    recipe: Recipe,
) -> Tensor:
    """The images, uint8 [N, C, H, W] on the CPU; the same for any number of workers, up to rounding."""
    device = world.device
    torch.manual_seed(int(stream(0, Purpose.YARDSTICK).integers(2**63)))
    generator = Generator(recipe.z_dim, image_shape, recipe.channels, statistics).to(device)
    generator.low_resolution = generator.channels_last = True
    inverter = Inverter(
        generator,
        torch.optim.Adam(generator.parameters(), lr=recipe.learning_rate, betas=(0.5, 0.999), fused=True),
        {part: StatisticsGap(teacher, recipe.momentum) for part in range(recipe.parts)[world.rank :: world.size]},
        recipe.parts,
        weights=recipe.weights,
        add_up=world.sum_all if world.size > 1 else None,
    )
    batches: list[Tensor] = []
    total = recipe.warm_up + -(-recipe.images // recipe.batch)
    for number in range(total):
        rng = stream(0, Purpose.YARDSTICK, 1, number)
        batch = draw_batch(
            rng,
            recipe.z_dim,
            num_classes,
            images=recipe.batch,
            steps=recipe.steps,
            parts=recipe.parts,
            jitter=most_jitter(image_shape),
        )
        made = inverter.make(batch.to(device))
        if number >= recipe.warm_up:
            own = {part: as_bytes(images, statistics).cpu() for part, (images, _) in made.items()}
            batches += world.gather_parts(own).values()
        tick(YARDSTICK, number + 1, total)
    if not all(parameter.isfinite().all() for parameter in generator.parameters()):  # equal on all workers
        raise UserError("the yardstick cannot be made: the teacher's answers are not finite; look at its weights")
    return torch.cat(batches)[: recipe.images].contiguous()


def _kept(path: Path, images: Tensor) -> Tensor:
    """Writes the images; where another run has written some meanwhile, those, as they may differ by rounding."""
    remove_leftovers(path.parent)
    theirs = _read(path)
    if theirs is not None:
        return theirs
    try:
        write_atomic(path, save({"images": images}, {"sha256": sha256_of_pixels(images)}))
    except OSError as error:
        log.warning("the yardstick cannot be kept, and is made anew each time: %s", error)
    return images


def _read(path: Path | None) -> Tensor | None:
    content = read_bytes(path) if path else None
    if content is None:
        return None
    try:
        images = load(content)["images"]
        # The header says what the pixels were: its length takes eight bytes, little-endian.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        if header["__metadata__"]["sha256"] != sha256_of_pixels(images):
            raise KeyError
        return images
    except (SafetensorError, KeyError):
        log.warning("%s is damaged; the yardstick is made again", path)
        return None
