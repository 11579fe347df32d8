"""Weights beside a `config.json` that says what they are: a network again in three lines of Python."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError
from torch import nn

from zskt_dist.config import parse_config
from zskt_dist.config.explain import first_problem
from zskt_dist.config.fields import Positive
from zskt_dist.config.inputs import Student
from zskt_dist.errors import UserError
from zskt_dist.export.exported_network import NORMALISED, ExportedNetwork
from zskt_dist.files import read_json, write_json
from zskt_dist.models import ImageShape, is_user_code
from zskt_dist.networks.building import read_network
from zskt_dist.networks.weights import save_weights

_PREPROCESSING = (
    "Images of this height and width, channels first, float32. Divide bytes by 255, subtract mean and divide by std, "
    "channel by channel."
)


class _Written(BaseModel):
    """What is needed of a `config.json`, which may come from anybody."""

    role: Literal["student", "teacher"]
    weights: Annotated[str, Field(pattern=r"^[\w. -]+\.safetensors$")]
    network: Student
    image_shape: tuple[Positive, Positive, Positive]
    num_classes: Positive


def write_weights(exported: ExportedNetwork, folder: Path) -> Path:
    """`ROLE.safetensors` and `config.json`; returns the path of the former."""
    path = folder / f"{exported.role}.safetensors"
    save_weights(path, exported.network, exported.about)
    section = getattr(exported.config, exported.role).model_dump(mode="json", include=set(Student.model_fields))
    content = {
        "format": "zskt_dist",
        "weights": path.name,
        "role": exported.role,
        "network": section,
        "image_shape": list(exported.image_shape),
        "num_classes": exported.num_classes,
        "class_names": exported.class_names,
        "mean": exported.mean,
        "std": exported.std,
        "input": NORMALISED,
        "preprocessing": _PREPROCESSING,
        "output": "logits; their softmax are probabilities",
    }
    write_json(folder / "config.json", content)
    return path


def load_network(folder: Path | str, *, arch: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network of an export's folder, frozen and in eval mode on the CPU, and the content of its `config.json`.

    Args:
        arch: The `package.module:callable` that may be run, with the options of `config.json`; None: networks of this
            package, timm and torchvision only.

    Raises:
        UserError: the folder holds no such export, or its network is code that `arch` does not name; ConfigError: the
            weights are damaged or do not fit.
    """
    path = Path(folder, "config.json")
    content = read_json(path)
    if content is None or content.get("format") != "zskt_dist":
        raise UserError(f"{path} is missing or no config.json of `zskt_dist.export --to safetensors`")
    try:
        written = _Written.model_validate(content)
    except ValidationError as error:
        raise first_problem(path, error) from None
    named = written.network.arch
    if arch != named and (arch is not None or is_user_code(named)):
        raise UserError(f"{path} needs the network {named!r}; where you trust its code, pass arch={named!r} to run it")
    config = parse_config({written.role: written.network.model_dump()})
    shape, file = ImageShape(*written.image_shape), path.with_name(written.weights)
    network = read_network(config, written.role, shape, written.num_classes, file, "weights")
    return network.eval().requires_grad_(False), content
