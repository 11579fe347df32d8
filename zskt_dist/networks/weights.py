"""Weights as files: safetensors, read and written without running anybody's code."""

import hashlib
import json
import logging
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from zskt_dist.errors import ConfigError
from zskt_dist.files import write_atomic
from zskt_dist.networks.state_dicts import AVERAGED, PLAIN, find_state_dicts, fitted, printable

log = logging.getLogger(__name__)

_SAFE_TORCH = "2.6"
"""The first torch whose `weights_only=True` runs nobody's code."""


def save_weights(path: Path, network: nn.Module, about: Mapping[str, object]) -> str:
    """Writes a safetensors file with `about` as metadata; returns the SHA-256 of the file, hex."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in network.state_dict().items():
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses tied weights: each name gets its own copy.
        tensors[name] = (tensor.detach().clone() if storage in seen else tensor.detach()).cpu().contiguous()
        seen.add(storage)
    # One key only: safetensors writes several in random order, and equal weights would differ as files.
    content = save(tensors, {"zskt_dist": json.dumps(about, sort_keys=True)})
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def parse_weights(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file that `save_weights` has written."""
    return load(content)


def read_about(path: Path) -> dict[str, object]:
    """What `save_weights` was told; empty for files of other origin."""
    if not _is_safetensors(path):
        return {}
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("zskt_dist", "{}")
    try:
        about = json.loads(text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def read_weights(path: Path, key: str, role: str = "", *, quiet: bool = False) -> dict[str, Tensor]:
    """A state dict from safetensors, or from what `torch.load(weights_only=True)` accepts; no fallback.

    Args:
        key: Configuration key that names the file, for messages.
        role: `teacher` or `student`, where the file may hold both.
        quiet: Not to warn that the weights are a part of the file: somebody else tells.

    Raises:
        ConfigError: no such file, damaged, without weights, or a pickle that could run code.
    """
    try:
        if path.is_dir():
            raise ConfigError(key, str(path), f"is a folder; name the file with the weights{_files_in(path)}")
        is_safetensors = _is_safetensors(path)
    except OSError as error:
        raise ConfigError(key, str(path), f"cannot be read: {error.strerror}") from None
    return _read_safetensors(path, key) if is_safetensors else _read_torch(path, key, role, quiet)


def load_into(
    network: nn.Module, weights: Mapping[str, Tensor], key: str, path: Path | str, num_classes: int | None = None
) -> None:
    """Loads all weights by name.

    Raises:
        ConfigError: names or shapes differ, or a weight is not finite; the first ones are listed.
    """
    network.load_state_dict(fit(network, weights, key, path, num_classes))


def fit(
    network: nn.Module, weights: Mapping[str, Tensor], key: str, path: Path | str, num_classes: int | None = None
) -> dict[str, Tensor]:
    """`weights` by the names of `network`; raises as `load_into`."""
    try:
        return fitted(weights, network.state_dict(), num_classes)
    except ValueError as error:
        raise ConfigError(key, str(path), str(error)) from None


def _is_safetensors(path: Path) -> bool:
    """By name, or by what it begins with: the length of a header in eight bytes, and the header, which is JSON."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path, key: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # a damaged file may lead anywhere
        raise ConfigError(key, str(path), f"damaged or not safetensors: {_first_line(error)}") from None


def _read_torch(path: Path, key: str, role: str, quiet: bool) -> dict[str, Tensor]:
    if torch.__version__ < _SAFE_TORCH:
        problem = f"is not read with torch {torch.__version__}, which a file can make run code (CVE-2025-32434)"
        raise ConfigError(key, str(path), f"{problem}; use torch {_SAFE_TORCH} or newer, or safetensors")
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # likewise; nothing in the file has been run
        raise ConfigError(key, str(path), _why_not(error)) from None
    found = list(find_state_dicts(loaded, role))
    if not found:
        names = ", ".join(map(printable, list(loaded)[:8])) if isinstance(loaded, Mapping) else type(loaded).__name__
        problem = (
            f"expected a state dict (names to tensors) and found only: {names or 'nothing'}; weights are looked for"
        )
        where = f"under {', '.join(PLAIN[:3])}, {AVERAGED[0]} and the like: save model.state_dict()"
        raise ConfigError(key, str(path), f"{problem} {where}")
    chosen, rest = found[0], ", ".join(each.place for each in found[1:] if each.place)
    if chosen.place and not quiet:
        log.warning(
            "%s=%s: takes the weights under %s%s", key, path, chosen.place, rest and f", not those under {rest}"
        )
    return chosen.weights


def _why_not(error: Exception) -> str:
    """What `torch.load(weights_only=True)` did not like."""
    text = str(error)
    if match := re.search(r"GLOBAL (\S+)", text):
        return (
            f"holds {match[1]} besides tensors, and a pickle of more than tensors could run code when loaded, so it is "
            "refused. Where it was made, save the weights alone: torch.save(model.state_dict(), …), or safetensors"
        )
    if "TorchScript" in text:
        return "is a TorchScript archive, which holds code; save model.state_dict(), with torch.save or as safetensors"
    if isinstance(error, pickle.UnpicklingError | LookupError | AttributeError | TypeError):
        return "damaged or not a PyTorch file; expected safetensors, or what torch.save(model.state_dict(), …) writes"
    return f"damaged or not a PyTorch file: {_first_line(error)}"


def _files_in(folder: Path) -> str:
    names = sorted(each.name for each in folder.iterdir() if each.suffix in (".safetensors", ".pt", ".pth", ".bin"))
    return f", for example {folder / names[0]}" if names else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
