"""What a run is made from: the sections `teacher`, `student`, `generator` and `data`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from zskt_dist.config.fields import (
    LIST_OF_NUMBERS,
    LIST_OF_TEXTS,
    Finite,
    Local,
    Options,
    OutputName,
    Positive,
    PositiveFloat,
    Purpose,
    Section,
    Seed,
    clash,
)

BROUGHT = "none"
"""`teacher.checkpoint` of a network that comes with its weights; a run adds their digest: `none:0123456789abcdef`."""


def is_brought(location: str | None) -> bool:
    """True if no file is meant but the weights that a network comes with."""
    return location is not None and location.partition(":")[0] == BROUGHT


class Teacher(Section):
    arch: str = "wrn-16-2"
    """The teacher's network: a name of ours, `timm:NAME`, `torchvision:NAME`, `package.module:callable`
    (docs/networks.md)."""
    options: Options = Field(default_factory=dict)
    """Keyword arguments of the network, besides those that follow from the images and classes."""
    output: OutputName | None = None
    """Name of the logits where the network returns several values: a key, a field or a number; null: `logits`, `output`
    or `out`, else the only values of as many classes."""
    checkpoint: str | None = None
    """Weights: safetensors, or state dicts that `torch.load(weights_only=True)` reads. null: pretrain and cache.
    none: those that `package.module:callable` comes with (docs/weights.md)."""
    prefix: str | None = None
    """What all names of the teacher's weights in the file begin with, as `net.`; '': nothing; null: found
    (docs/weights.md)."""
    seed: Seed | Literal["run"] | None = None
    """Seed of the teacher's training; null: 0, so that `seed` changes the student alone, and in `pretrain` the run's
    `seed`; run: the run's `seed`, a teacher for each."""

    @model_validator(mode="after")
    def _prefix_needs_a_file(self) -> Self:
        if self.prefix is not None and (self.checkpoint is None or is_brought(self.checkpoint)):
            raise clash("teacher.prefix", self.prefix, "is of the names in a file; say which, teacher.checkpoint=FILE")
        return self


class Student(Section):
    arch: str = "wrn-10-1"
    """The student's network, named in the same way as `teacher.arch`."""
    options: Options = Field(default_factory=dict)
    """Keyword arguments of the network, as in `teacher.options`."""
    output: OutputName | None = None
    """Name of the logits where the network returns several values, as in `teacher.output`."""


class Generator(Section):
    z_dim: Positive = 100
    """Dimensions of the noise z."""
    channels: Annotated[tuple[Positive, Positive], LIST_OF_NUMBERS] = (128, 64)
    """Channels of the two hidden stages (paper: 128, 64)."""


class Data(Section):
    name: Literal["digits", "cifar10", "svhn", "mnist", "fashion_mnist", "parquet", "none"] = "digits"
    """Real images, for training the teacher and for evaluation; the transfer never reads them. parquet: yours, in
    Parquet files or class folders (docs/images.md). none: there are none."""
    root: Local = "data"
    """Folder with the data set (unused by digits)."""
    download: Annotated[bool, Purpose.PLACEMENT] = False
    """Let torchvision download what is missing."""
    image_shape: Annotated[tuple[Positive, Positive, Positive] | None, LIST_OF_NUMBERS] = None
    """[channels, height, width] of the networks' images; null: those of the data set, else the teacher's."""
    num_classes: Positive | None = None
    """Length of the logits; null: the classes of the data set, else the teacher's."""
    class_names: Annotated[tuple[str, ...] | None, LIST_OF_TEXTS] = None
    """Names of the classes in the order of the teacher's answers, where the labels are names; null: as they are found
    (docs/images.md)."""
    mean: Annotated[tuple[Finite, ...] | None, LIST_OF_NUMBERS] = None
    """Mean of each channel of pixels in [0, 1], or one number for all; null: the data set's usual one, else the
    teacher's (docs/inputs.md)."""
    std: Annotated[tuple[PositiveFloat, ...] | None, LIST_OF_NUMBERS] = None
    """Standard deviation of each channel of pixels in [0, 1], or one number for all; null: the data set's usual one,
    else the teacher's."""
    images_per_class: Positive | None = None
    """M, labelled images per class that `distill`, `finetune` and `pretrain` of a student see; null: all of them."""
    augment: Literal["auto", "none", "crop", "crop_flip"] = "auto"
    """Augmentation in supervised training; auto: crop_flip on CIFAR-10 and Fashion-MNIST, none on SVHN, else crop."""
