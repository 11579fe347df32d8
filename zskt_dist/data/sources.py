"""Where each named data set comes from."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor

from zskt_dist.config import Config
from zskt_dist.config.inputs import Data
from zskt_dist.data.digits import read_digits
from zskt_dist.data.images import ImageDataset, Split, SplitName
from zskt_dist.errors import ConfigError
from zskt_dist.extras import lacking
from zskt_dist.models import ImageShape, Statistics

Augmentation = Literal["none", "crop", "crop_flip"]


class Facts(NamedTuple):
    """Facts about a data set that are known without reading it."""

    image_shape: ImageShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    expected: str
    """Files that `data.root` must contain."""


# Means and standard deviations are those of the authors' code; the gray ones were measured on the train splits.
KNOWN = {
    "digits": Facts(ImageShape(1, 8, 8), (0.3054,), (0.3760,), "crop", "nothing, it comes with this package"),
    "cifar10": Facts(
        ImageShape(3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "crop_flip", "cifar-10-batches-py/"
    ),
    "svhn": Facts(
        ImageShape(3, 32, 32),
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
        "none",
        "train_32x32.mat and test_32x32.mat",
    ),
    "mnist": Facts(ImageShape(1, 28, 28), (0.1307,), (0.3081,), "crop", "MNIST/raw/"),
    "fashion_mnist": Facts(ImageShape(1, 28, 28), (0.2860,), (0.3530,), "crop_flip", "FashionMNIST/raw/"),
}


def wrong_channels(statistics: Statistics, channels: int, who: str = "data.mean") -> ConfigError:
    """The error for a normalisation from `who` with other channels; null helps only where that is `data.mean`."""
    own = who == "data.mean"
    images = f"images of {channels} channel{'s' * (channels > 1)}"
    problem = f"does not fit {images}" if own else f"comes from {who} and does not fit {images}"
    mean, std = ("[" + ",".join([number] * channels) + "]" for number in ("0.5", "0.25"))
    remedy = f"give one number per channel, for example data.mean={mean} data.std={std}"
    if (len(statistics[0]), channels) == (1, 3):
        remedy = f"save gray images in mode L, not RGB, or {remedy}"
    return ConfigError("data.mean", list(statistics[0]), f"{problem}; {remedy}{', or null for both' if own else ''}")


def given_statistics(data: Data, channels: int | None) -> Statistics | None:
    """`data.mean` and `data.std` for images of so many channels, where one number stands for all; None: not given."""
    if not data.mean or not data.std:
        return None
    copies = channels if channels and len(data.mean) == 1 else 1
    return data.mean * copies, data.std * copies


def open_dataset(config: Config, *, needs_train: bool = False, num_classes: int | None = None) -> ImageDataset:
    """The data set of `config.data`; its images are read on first use.

    Args:
        needs_train: True if a missing train split is an error now, as far as that is known without reading.
        num_classes: How many classes the networks tell apart; None: that is not known.

    Raises:
        ConfigError: the data set is missing in `data.root`, its channels do not fit `data.mean`, `data.name` is none,
            or the package that reads it is not installed.
    """
    data = config.data
    if data.name == "none":
        raise ConfigError("data.name", "none", "there are no images to read")
    if data.name == "digits" and Path(data.root).name != "data":  # nor is that the default, made absolute
        problem = "digits come with this package and have no folder; for images of your own say data.name=parquet, too"
        raise ConfigError("data.root", data.root, problem)
    read: Callable[[SplitName], Split]
    read_labels: Callable[[SplitName], Tensor] | None = None
    augmentation: Augmentation
    usual: Statistics | None = None
    counts_classes, has_train = False, True
    files: str | None = None
    notes: tuple[tuple[str, str], ...] = ()
    if data.name == "parquet":
        from zskt_dist.data.user_images import UserImages  # late: it needs pyarrow

        own = UserImages(data.root, num_classes, data.class_names)
        if needs_train:
            own.require("train")
        shape, classes, read, read_labels = own.image_shape, own.num_classes, own.read, own.read_labels
        counts_classes, has_train, files, notes = own.counts_classes, own.has("train"), own.files, own.notes
        augmentation = "crop"
    else:
        facts = KNOWN[data.name]
        shape, classes, augmentation = facts.image_shape, 10, facts.augmentation
        usual = facts.mean, facts.std
        read = read_digits if data.name == "digits" else _torchvision_reader(config)
    given = given_statistics(data, shape.channels)
    if given and len(given[0]) != shape.channels:
        raise wrong_channels(given, shape.channels)
    return ImageDataset(
        name=data.name if data.name != "parquet" else Path(data.root).name,
        image_shape=shape,
        num_classes=classes,
        read=read,
        read_labels=read_labels,
        statistics=given or usual,
        augmentation=augmentation if data.augment == "auto" else data.augment,
        counts_classes=counts_classes,
        has_train=has_train,
        files=files,
        notes=notes,
    )


def _torchvision_reader(config: Config) -> Callable[[SplitName], Split]:
    needed = ("torchvision", "scipy") if config.data.name == "svhn" else ("torchvision",)  # SVHN is a .mat file
    if problem := lacking(*needed):
        raise ConfigError("data.name", config.data.name, problem)

    def read(split: SplitName) -> Split:
        from torchvision import datasets

        name, root, download = config.data.name, config.data.root, config.data.download
        train = split == "train"
        try:
            if name == "cifar10":
                cifar = datasets.CIFAR10(root, train=train, download=download)
                return _split(torch.from_numpy(cifar.data).permute(0, 3, 1, 2), torch.tensor(cifar.targets))
            if name == "svhn":
                svhn = datasets.SVHN(root, split=split, download=download)
                return _split(torch.from_numpy(svhn.data), torch.from_numpy(svhn.labels))
            family = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
            gray = family(root, train=train, download=download)
            return _split(gray.data[:, None], gray.targets)
        except URLError as error:
            raise ConfigError("data.download", True, f"{name} cannot be downloaded: {error.reason}") from None
        except (RuntimeError, ValueError, OSError, EOFError):
            raise ConfigError(
                "data.root",
                root,
                f"{name} is not there: put {KNOWN[name].expected} into it, set data.download=true, "
                "or use data.name=parquet with a folder of train-*.parquet and test-*.parquet, or of class folders",
            ) from None

    return read


def _split(images: Tensor, labels: Tensor) -> Split:
    return Split(images.to(torch.uint8).contiguous(), labels.to(torch.int64))
