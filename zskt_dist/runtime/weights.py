"""Weights as files: safetensors, read and written without running anybody's code."""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from zskt_dist.errors import ConfigError
from zskt_dist.files import write_atomic


def save_weights(path: Path, network: nn.Module, about: Mapping[str, object]) -> str:
    """Writes a safetensors file with `about` as metadata; returns the SHA-256 of the file, hex."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # One key only: safetensors writes several in random order, and equal weights would differ as files.
    content = save(tensors, {"zskt_dist": json.dumps(about, sort_keys=True)})
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def parse_weights(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file that `save_weights` has written."""
    return load(content)


def read_about(path: Path) -> dict[str, object]:
    """What `save_weights` was told; empty for files of other origin."""
    with safe_open(path, framework="pt") as file:
        return dict(json.loads((file.metadata() or {}).get("zskt_dist", "{}")))


def read_weights(path: Path, key: str) -> dict[str, Tensor]:
    """A state dict from safetensors, or from what `torch.load(weights_only=True)` accepts; no fallback.

    Args:
        key: Configuration key that names the file, for messages.

    Raises:
        ConfigError: no such file, damaged, or a pickle that could run code.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(key, str(path), f"cannot be read: {error.strerror}") from None
    if path.suffix == ".safetensors":
        return _read_safetensors(path, key)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            key,
            str(path),
            "this pickle holds more than tensors and could run code when loaded, so it is refused. "
            "Save the state dict with safetensors, or torch.save(model.state_dict(), …)",
        ) from None
    except (RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(key, str(path), f"damaged or not a PyTorch file: {_first_line(error)}") from None
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ConfigError(key, str(path), "expected a state dict (names to tensors); save model.state_dict()")
    return dict(loaded)


def load_into(network: nn.Module, weights: Mapping[str, Tensor], key: str, path: Path | str) -> None:
    """Loads all weights by name.

    Raises:
        ConfigError: names or shapes differ, or a weight is not finite; the first ones are listed.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    reshaped = [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems = [
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", reshaped))
        if names
    ]
    if problems:
        raise ConfigError(key, str(path), f"does not fit the architecture; {'; '.join(problems)}")
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ConfigError(key, str(path), f"has weights that are not finite, first in {broken[0]}")
    network.load_state_dict(weights)


def _read_safetensors(path: Path, key: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ConfigError(key, str(path), f"damaged or not safetensors: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
