"""Weights beside a `config.json` that says what they are: a network again in three lines of Python."""

from pathlib import Path
from typing import Any

from torch import nn

from zskt_dist.config import parse_config
from zskt_dist.deploy.subject import NORMALISED, Subject
from zskt_dist.errors import UserError
from zskt_dist.files import read_json, write_json
from zskt_dist.runtime.networks import load_trained
from zskt_dist.runtime.weights import save_weights

_PREPROCESSING = (
    "Images of this height and width, channels first, float32. Divide bytes by 255, subtract mean and divide by std, "
    "channel by channel."
)


def write_weights(subject: Subject, folder: Path) -> Path:
    """`ROLE.safetensors` and `config.json`; returns the path of the former."""
    path = folder / f"{subject.role}.safetensors"
    save_weights(path, subject.network, subject.about)
    section = getattr(subject.config, subject.role).model_dump(mode="json", exclude={"checkpoint", "seed"})
    content = {
        "format": "zskt_dist",
        "weights": path.name,
        "role": subject.role,
        "network": section,
        "image_shape": list(subject.image_shape),
        "num_classes": subject.num_classes,
        "class_names": subject.class_names,
        "mean": subject.mean,
        "std": subject.std,
        "input": NORMALISED,
        "preprocessing": _PREPROCESSING,
        "output": "logits; their softmax are probabilities",
    }
    write_json(folder / "config.json", content)
    return path


def load_network(folder: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of an export's folder, frozen and in eval mode on the CPU, and the content of its `config.json`.

    Raises:
        UserError: the folder holds no such export; ConfigError: the weights are damaged or do not fit.
    """
    path = Path(folder, "config.json")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != "zskt_dist":
        raise UserError(f"{path} is missing or no config.json of `zskt_dist.export --to safetensors`")
    config = parse_config({content["role"]: content["network"]})
    network, _ = load_trained(config, content["role"], path.with_name(content["weights"]))
    return network, content
