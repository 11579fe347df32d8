"""Shape, normalisation and classes of images: settled once from configuration, data set and teacher."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError

from zskt_dist.config import Config
from zskt_dist.config.explain import explain
from zskt_dist.config.inputs import Data
from zskt_dist.data import ImageDataset, Standardise, open_dataset
from zskt_dist.data.sources import given_statistics, wrong_channels
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape, InputSpec, NetworkError, Statistics, check_known, input_spec_of_arch
from zskt_dist.models.logits import one_number
from zskt_dist.networks.weights import WeightsFile

Declaration = tuple[str, str, InputSpec]
"""Name and location of a file, and what it declares."""
Claim = tuple[str, object, Any]
"""A key, its value, and the fact that they state; None: they state nothing."""

_KEYS = ("data.image_shape", "data.num_classes", "data.mean")
"""Keys that state the fields of `InputSpec`, in its order."""
_METADATA = ("image_shape", "num_classes", "mean", "std")
"""Metadata of our files of weights, by the names of `data`."""
_ROUNDING = 1e-3
"""Two numbers of a normalisation that are nearer than this count as equal: one has fewer digits."""


class Inputs(NamedTuple):
    """Images and classes, the same for teacher, student and generator."""

    image_shape: ImageShape
    num_classes: int
    statistics: Statistics | None
    """Mean and standard deviation of the normalisation; None: measured on the train images when first needed."""
    normalised_by: str
    """The configuration key or the weights that state the normalisation."""
    dataset: ImageDataset | None
    """The real images with this normalisation; None with `data.name=none`."""
    guessed: tuple[str, ...] = ()
    """Keys whose values come only from the name of the teacher's architecture."""

    @property
    def mean_std(self) -> Statistics:
        if self.dataset is not None:
            return self.dataset.mean_std
        assert self.statistics, "without images nothing can be measured, so they are given"
        return self.statistics

    @property
    def warning(self) -> str | None:
        """Warning of guessed values, as the teacher may have been trained with others; None without guesses."""
        if not self.guessed:
            return None
        values = {
            "data.image_shape": f"data.image_shape={_shown(self.image_shape)}",
            "data.num_classes": f"data.num_classes={self.num_classes}",
            "data.mean": self.statistics and _words(self.statistics),
        }
        guesses = " ".join(str(values[key]) for key in self.guessed)
        return (
            f"guessed from the name of teacher.arch: {guesses}, which such networks usually have; "
            "set these keys to what this teacher was trained with (docs/inputs.md)"
        )

    def standardise(self, device: torch.device) -> Standardise:
        return Standardise(*self.mean_std, device)


def open_inputs(config: Config, weights: Sequence[Declaration] = (), *, needs_train: bool) -> Inputs:
    """Images, classes and normalisation of a configuration, with its data set if it has one.

    Three sources state these facts and must agree: the files of the data set, the keys `data.*` of the configuration,
    and the metadata of our safetensors files. For the normalisation, `data.mean` takes precedence over the data set's
    usual one. What none of them states comes from the teacher's architecture.

    Args:
        weights: What files of weights, and of pseudo-data, declare.
        needs_train: True if real images are trained on: then a missing train split is an error now.

    Raises:
        ConfigError: two sources contradict each other, none states a fact that is needed, or the data set is missing.
    """
    told = config.data.num_classes or next((each.num_classes for *_, each in weights if each.num_classes), None)
    none = config.data.name == "none"
    dataset = None if none else open_dataset(config, needs_train=needs_train, num_classes=told)
    source, stated = _stated(config.data, dataset, weights)
    measurable = dataset is not None and dataset.has_train
    filled = _filled_by_arch(stated, config.teacher.arch, measurable)
    shape, classes, statistics = filled
    if shape is None:
        raise _unknown("data.image_shape", "how large the teacher's images are; give channels,height,width, as 3,32,32")
    if classes is None:
        raise _unknown("data.num_classes", "how many classes the teacher tells apart")
    if classes == 1:
        raise ConfigError("data.num_classes", 1, f"a network of one class tells nothing apart; if it {one_number()}")
    if statistics is None and not measurable:
        raise _unknown("data.mean", "how the teacher's images are normalised; give data.mean and data.std")
    guessed = tuple(key for key, one, two in zip(_KEYS, stated, filled, strict=True) if one is None and two is not None)
    if "data.mean" in guessed:
        source = "teacher.arch"
    if source == "data.mean":
        statistics = given_statistics(config.data, shape.channels)
    if statistics and len(statistics[0]) != shape.channels:
        raise wrong_channels(statistics, shape.channels, source)
    if statistics and max(map(abs, statistics[0])) > 1:
        mean, std = (_shown([number / 255 for number in numbers]) for numbers in statistics)
        problem = f"is of pixels in [0, 1], not of bytes; divided by 255: data.mean={mean} data.std={std}"
        raise ConfigError("data.mean", list(statistics[0]), problem)
    dataset = dataset and replace(dataset, num_classes=classes, statistics=statistics)
    return Inputs(shape, classes, statistics, source, dataset, guessed)


def _stated(data: Data, dataset: ImageDataset | None, weights: Sequence[Declaration]) -> tuple[str, InputSpec]:
    """The source of the normalisation, and all that configuration, data set and weights state; raises ConfigError."""

    def by_weights(fact: str) -> Iterator[Claim]:
        return ((key, location, getattr(declared, fact)) for key, location, declared in weights)

    given = data.image_shape and ImageShape(*data.image_shape)
    shape: ImageShape | None = _settled(
        "images of {}",
        ("data.image_shape", given and list(given), given),
        ("data.name", data.name, dataset and dataset.image_shape),
        *by_weights("image_shape"),
    )
    classes: int | None = _settled(
        "{} classes",
        ("data.num_classes", data.num_classes, data.num_classes),
        ("data.name", data.name, None if dataset is None or dataset.counts_classes else dataset.num_classes),
        *by_weights("num_classes"),
    )
    if dataset and dataset.counts_classes:  # there may be classes that no image is of
        classes = classes or dataset.num_classes
        if classes < dataset.num_classes:
            problem = f"has labels up to {dataset.num_classes - 1}, and the networks tell {classes} classes apart"
            raise ConfigError("data.root", data.root, problem)
    source, statistics = _normalisation(
        ("data.mean", data.mean, given_statistics(data, shape and shape.channels)),
        ("data.name", data.name, dataset and dataset.statistics),
        *by_weights("statistics"),
    )
    return source, InputSpec(shape, classes, statistics)


def _filled_by_arch(stated: InputSpec, arch: str, measurable: bool) -> InputSpec:
    """The facts in `stated`, completed by what an architecture declares.

    Args:
        measurable: True if there are train images to measure the normalisation on.

    Raises:
        ConfigError: there is no such network.
    """
    shape, classes, statistics = stated
    if shape is not None and classes is not None and (statistics is not None or measurable):
        return stated
    try:
        check_known(arch)  # nothing is asked for that a network lacks which is not there
    except NetworkError as error:
        raise ConfigError("teacher.arch", arch, str(error)) from None
    declared = input_spec_of_arch(arch)
    shape, classes = shape or declared.image_shape, classes or declared.num_classes
    if statistics is None and declared.statistics and shape and len(declared.statistics[0]) == shape.channels:
        statistics = declared.statistics
    return InputSpec(shape, classes, statistics)


def declared_by_pseudo_data(folder: str) -> Declaration:
    """What a folder of pseudo-data declares; raises ConfigError where it holds none."""
    from zskt_dist.data.pseudo import PseudoData  # late: it needs pyarrow

    about = PseudoData.open(folder).about
    statistics = tuple(about["mean"]), tuple(about["std"])
    return "pseudo_data", folder, InputSpec(ImageShape(*about["image_shape"]), about["num_classes"], statistics)


def declared_by_file(file: WeightsFile) -> Declaration:
    """What the metadata of our safetensors files declare; files of other origin declare nothing.

    Raises:
        ConfigError: the file or its metadata is damaged.
    """
    key, location, about = file.key, file.location, file.about
    try:
        found = Data.model_validate_json(json.dumps({name: about.get(name) for name in _METADATA}))
    except ValidationError as error:
        raise ConfigError(key, location, f"damaged or not safetensors: its metadata says {explain(error)}") from None
    if len(found.mean or ()) != len(found.std or ()):
        problem = "damaged or not safetensors: its mean and std are not of equally many channels"
        raise ConfigError(key, location, problem)
    declared = InputSpec(
        image_shape=found.image_shape and ImageShape(*found.image_shape),
        num_classes=found.num_classes,
        statistics=(found.mean, found.std) if found.mean and found.std else None,
    )
    return key, location, declared


def _settled(what: str, *claims: Claim) -> Any:
    """The value on which all claims agree; None where no claim states one.

    Args:
        what: The fact in words, with a place for the value, for messages.
        claims: Those of the configuration, the data set, the weights: the easiest to change comes first.

    Raises:
        ConfigError: two contradict each other.
    """
    known = [each for each in claims if each[2] is not None]
    for key, stated_by, value in known[1:]:
        first_key, first_value, first = known[0]
        if value != first:
            free = first_key in ("data.image_shape", "data.num_classes")
            remedy = f"{first_key}=null" if free else "data (data.name, data.root) and networks that fit"
            problem = f"means {what.format(_shown(first))}, but {key}={stated_by} means {_shown(value)}; use {remedy}"
            raise ConfigError(first_key, first_value, problem)
    return known[0][2] if known else None


def _normalisation(*claims: Claim) -> tuple[str, Statistics | None]:
    """The source and the values of the normalisation; None where no claim states them.

    `data.mean` may differ from the usual one of a data set, but not from the one that a network was trained with.

    Raises:
        ConfigError: two contradict each other.
    """
    known = [each for each in claims if each[2] is not None]
    if not known:
        return "data.name", None
    first_key, first_value, first = known[0]
    for key, stated_by, value in known[1:]:
        if key != "data.name" and not _close(first, value):
            problem = f"means {_words(first)}, but {key}={stated_by} was trained with {_words(value)}; use the latter"
            raise ConfigError(first_key, first_value, problem)
    return first_key, first


def _close(one: Statistics, other: Statistics) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        len(a) == len(b) and all(math.isclose(x, y, abs_tol=_ROUNDING, rel_tol=0) for x, y in zip(a, b, strict=True))
        for a, b in pairs
    )


def _words(statistics: Statistics) -> str:
    return f"data.mean={_shown(statistics[0])} data.std={_shown(statistics[1])}"


def _shown(value: Sequence[float] | int) -> str:
    """A value as it is written on the command line."""
    return str(value) if isinstance(value, int) else f"[{','.join(f'{number:g}' for number in value)}]"


def _unknown(key: str, what: str) -> ConfigError:
    return ConfigError(key, None, f"neither data nor teacher.checkpoint nor teacher.arch states {what}")
