"""How `method=inversion` makes images and learns from them: the section `inversion`."""

from typing import Annotated, Literal

from pydantic import Field

from zskt_dist.config.fields import Local, NonNegative, NonNegativeFloat, Positive, PositiveFloat, Section


class Inversion(Section):
    """The teacher is inverted in rounds, each with more student steps on the pool of images than the one before."""

    rounds: Positive = 40
    """Rounds of synthesis: round e begins after a share of e (e + 1) / (R (R + 1)) of the student steps of `spread`."""
    spread: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the student steps over which rounds are spread; in the rest the student learns from the whole pool."""
    images: Positive = 32
    """Images in the batch that the generator makes in a round."""
    parts: Positive = 2
    """Parts of this batch, each with statistics of its own; workers share them out. More where `engine.micro_batch`
    demands smaller ones."""
    steps: Positive = 10
    """Steps of the generator for each batch, whose z and classes stay the same meanwhile."""
    kept: Positive = 2
    """Steps whose images are kept, evenly spaced up to the last; of fewer steps all."""
    warm_up: NonNegative = 50
    """Batches that the generator makes before the first one that is kept."""
    learning_rate: PositiveFloat = 1e-2
    """Learning rate of the generator's Adam, the same in all rounds."""
    statistics: NonNegativeFloat = 4.0
    """Weight of the distance to the statistics of the teacher's normalisation layers, in percent of a deviation."""
    jitter: NonNegative | None = None
    """Most pixels by which the networks see images displaced while they are made; null: a fourteenth of their size."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of earlier batches in the statistics that are compared: these are those of some 1 / (1 - momentum)."""
    labels: NonNegativeFloat = 0.5
    """First weight of the teacher's cross entropy with the classes that the images shall have, as many of each."""
    label_loss: PositiveFloat = 0.5
    """This cross entropy, in nats, as it shall be: the weight rises after each batch with more, and falls with less."""
    gap: Literal["cross_entropy", "masked_kl", "none"] = "cross_entropy"
    """What sets teacher and student apart: gap cross entropy (GapSSG), KL where both predict the same class (CMI)."""
    gap_weight: NonNegativeFloat = 0.5
    """Weight of the gap."""
    temperature: PositiveFloat = 20.0
    """T, softmax temperature of both networks while the student learns; the KL is multiplied by its square."""
    views: Positive = 8
    """Shifted copies of each image from which the student's batches are drawn; the teacher is asked once for each."""
    shift: NonNegative | None = None
    """Most pixels by which they are shifted; null: an eighth of their size."""
    flip: bool = False
    """Mirror half of them, too; not where left and right have a meaning, as in digits and letters."""
    darken: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of its brightness that a view loses at most, every other view of an image; 0: none does."""
    seed_images: Local | None = None
    """A folder or a Parquet file of images without labels that the pool starts with: so the run is not data-free."""
    pool_mib: PositiveFloat = 1024.0
    """Most memory for the pool and the teacher's answers on each worker, in MiB; the oldest images leave first."""

    @property
    def images_of_round(self) -> int:
        """Images that a round adds to the pool."""
        return self.images * min(self.kept, self.steps)
