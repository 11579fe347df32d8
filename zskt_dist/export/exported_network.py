"""What is exported: the trained network of a finished run, with all that is known about it."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.config.inputs import is_brought
from zskt_dist.data import class_names
from zskt_dist.errors import UserError
from zskt_dist.evaluation.evaluated_run import teacher_weights
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import load_trained, read_network, suited
from zskt_dist.networks.weights import WeightsFile, digest_of
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import is_file

log = logging.getLogger(__name__)

NORMALISED = "normalised images"
PIXELS = "pixels in [0, 1]"


@dataclass(frozen=True)
class ExportedNetwork:
    """A network of a finished run, on the CPU, in eval mode and frozen, as is `teacher`.

    Attributes:
        role: `student` or `teacher`.
        network: Normalised images [B, C, H, W] to logits [B, K].
        teacher: The network that the student learnt from; None where there was none, or it is gone or unreadable.
        mean: Of each channel, of pixels in [0, 1]; None where the run does not say.
        class_names: K names, or None where they are not known.
        sha256: Of the file of weights it was read from, or over those that it came with.
    """

    directory: RunDirectory
    config: Config
    result: dict[str, Any]
    role: str
    network: nn.Module
    teacher: nn.Module | None
    image_shape: ImageShape
    num_classes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    class_names: list[str] | None
    sha256: str

    @property
    def arch(self) -> str:
        return str(getattr(self.config, self.role).arch)

    @property
    def about(self) -> dict[str, Any]:
        """What is written into weights, as a run writes it."""
        return {
            "arch": self.arch,
            "options": getattr(self.config, self.role).options,
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "mean": self.mean,
            "std": self.std,
        }


class Deployed(nn.Module):
    """What is handed out; its inputs are normalised images, or pixels in [0, 1] where it normalises them itself.

    The network is called, not traced itself, so that its forward hooks take part.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, exported: ExportedNetwork, *, normalises: bool) -> None:
        super().__init__()
        self.network = exported.network
        self.normalises = normalises
        if normalises:
            if exported.mean is None or exported.std is None:
                raise UserError(f"--with-normalisation: {exported.directory.location} does not say its mean and std")
            self.register_buffer("mean", torch.tensor(exported.mean).view(1, -1, 1, 1))
            self.register_buffer("std", torch.tensor(exported.std).view(1, -1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [B, C, H, W] to logits [B, K]."""
        logits: Tensor = self.network((images - self.mean) / self.std if self.normalises else images)
        return logits

    def from_normalised(self, images: Tensor) -> Tensor:
        """Normalised images as what this takes."""
        return images * self.std + self.mean if self.normalises else images


def own_role(result: dict[str, Any]) -> str:
    """Of the network that a run has trained."""
    return "student" if result["student"] else "teacher"


def open_network(directory: RunDirectory, result: dict[str, Any], role: str | None = None) -> ExportedNetwork:
    """The network of a finished run.

    Args:
        role: None: the network that the run has trained.

    Raises:
        UserError: the run has no such network; ConfigError: its weights are not there, or damaged.
    """
    config = directory.read_config()
    if config is None:
        raise UserError(f"{directory.location} holds a result but no config.yaml")
    own = own_role(result)
    role = role or own
    if role == "student" and own == "teacher":
        raise UserError(f"--role student: {directory.location} has trained a teacher, and no student")
    file = WeightsFile.open(directory.weights(own), f"{own} weights")
    about: dict[str, Any] = file.about
    network, shape = load_trained(config, own, file)
    sha256 = file.sha256
    classes = about["num_classes"]
    teacher = None
    if role != own:
        config, network, sha256 = _teacher(directory, config, shape, classes)
    elif own == "student" and result["teacher"]:
        try:
            _, teacher, _ = _teacher(directory, config, shape, classes)
        except UserError as error:
            log.warning("the student stands alone: %s", error)
    return ExportedNetwork(
        directory=directory,
        config=config,
        result=result,
        role=role,
        network=network,
        teacher=teacher,
        image_shape=shape,
        num_classes=classes,
        mean=_numbers(about.get("mean")),
        std=_numbers(about.get("std")),
        class_names=class_names(config.data, classes),
        sha256=sha256,
    )


def _teacher(
    directory: RunDirectory, config: Config, shape: ImageShape, num_classes: int
) -> tuple[Config, nn.Module, str]:
    """The teacher of a student's run, with the options that it was made with, and the SHA-256 of its file.

    Raises:
        UserError: it is gone, unreadable or another one.
    """
    location = teacher_weights(directory)
    if location is None or not (is_brought(location) or is_file(location, "RUN_DIR")):
        raise UserError(f"the teacher of {directory.location} is not there any more ({location})")
    key = "teacher weights"
    if is_brought(location):
        teacher = read_network(config, "teacher", shape, num_classes, location, key)
        return config, teacher.eval().requires_grad_(False), digest_of(teacher)
    file = WeightsFile.open(location, key)
    config, _ = suited(config, "teacher", shape, file, quiet=True)
    teacher = read_network(config, "teacher", shape, num_classes, file, key)
    return config, teacher.eval().requires_grad_(False), file.sha256


def _numbers(values: Any) -> tuple[float, ...] | None:
    return tuple(values) if values else None
