"""Weights as files: safetensors and torch's, read without running code from the file."""

import argparse
import hashlib
import io
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from zskt_dist.errors import ConfigError
from zskt_dist.files import read_bytes, write_atomic
from zskt_dist.logs import NOTE
from zskt_dist.networks.fitting import fit_weights
from zskt_dist.networks.state_dicts import AVERAGED, PLAIN, StateDict, find_state_dicts, listed, printable
from zskt_dist.runs.mirror import local_file
from zskt_dist.runs.sums import files_of, problem_of

log = logging.getLogger(__name__)

_SAFE_TORCH = "2.6"
"""The first torch whose `weights_only=True` runs no code from the file."""
_MOST_UNPACKED = 10
"""Times that an archive unpacks to at most: others have compressed some, and zeros shrink a thousand times."""
_ZIP = b"PK\x03\x04"
"""Begin of what `torch.save` writes."""
_LFS = b"version https://git-lfs.github.com/spec/"
_HARMLESS: list[Any] = [argparse.Namespace]
"""Besides what torch takes for harmless: the arguments of a script, as torchvision's references save them."""


def save_weights(path: Path, network: nn.Module, about: Mapping[str, object]) -> None:
    """Writes a safetensors file with `about` as metadata."""
    write_atomic(path, weights_file(network, about))


def weights_file(network: nn.Module, about: Mapping[str, object]) -> bytes:
    """A safetensors file with `about` as metadata."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in network.state_dict().items():
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses tied weights: each name gets its own copy.
        tensors[name] = (tensor.detach().clone() if storage in seen else tensor.detach()).cpu().contiguous()
        seen.add(storage)
    # One key only: safetensors writes several in random order, and equal weights would differ as files.
    return save(tensors, {"zskt_dist": json.dumps(about, sort_keys=True)})


def parse_weights(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file of `weights_file`."""
    return load(content)


def read_about(path: Path) -> dict[str, object]:
    """The metadata of `weights_file`, read from the head of the file; empty for files of other origin."""
    with path.open("rb") as file:
        head = file.read(9)
        size = min(_header_size(head), path.stat().st_size)
        return _about(head + file.read(size)) if _is_safetensors(path, head) else {}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that was read once; every method works on the content in memory.

    Attributes:
        key: Configuration key that names the file, for messages.
        location: As the user gives it, a path or a URI.
    """

    key: str
    location: str
    path: Path
    content: bytes = field(repr=False)

    @classmethod
    def open(cls, location: Path | str, key: str) -> "WeightsFile":
        """Reads the whole file; raises ConfigError where it cannot be read, or is not what a run has written there."""
        path = local_file(str(location), key)
        if path.is_dir():
            raise ConfigError(key, str(location), f"is a folder; name the file with the weights{_files_in(path)}")
        try:
            content = read_bytes(path)
        except OSError as error:
            raise ConfigError(key, str(location), f"cannot be read: {error.strerror}") from None
        if content is None and path not in files_of(path.parent, path.name):
            raise ConfigError(key, str(location), "there is no such file; say where it is")
        problem = problem_of(path, content)
        if content is None or problem:
            raise ConfigError(key, str(location), f"{problem}; restore it, or run the command again that has made it")
        if not content:
            raise ConfigError(key, str(location), "is empty; copy it again")
        if content.startswith(_LFS):
            problem = "is a pointer of Git LFS, and the weights lie elsewhere; run `git lfs pull` in its repository"
            raise ConfigError(key, str(location), problem)
        return cls(key, str(location), path, content)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def about(self) -> dict[str, object]:
        """The metadata of `weights_file`; empty for files of other origin.

        Raises:
            ConfigError: the file is damaged.
        """
        if not _is_safetensors(self.path, self.content):
            return {}
        try:
            return _about(self.content)
        except (ValueError, RecursionError) as error:
            raise self._damaged(error) from None

    def tensors(self, role: str = "", prefix: str | None = None, *, quiet: bool = False) -> StateDict:
        """The state dict in a safetensors file, or in one that `torch.load(weights_only=True)` accepts.

        Args:
            role: `teacher` or `student`, where the file may hold both.
            prefix: What the names begin with that are wanted; empty: those that begin with none; None: all are.
            quiet: True if the caller, not this method, warns that the weights are only a part of the file.

        Raises:
            ConfigError: the file is damaged, holds no such weights, or is a pickle that could run code.
        """
        weights = self._parsed(role, quiet)
        if prefix is None:
            return weights
        if not prefix:
            weights.at_top = True
            return weights
        start = f"{prefix.removesuffix('.')}."
        chosen = StateDict({name: tensor for name, tensor in weights.items() if name.startswith(start)})
        chosen._metadata = weights._metadata
        others = listed(sorted({re.sub(r"\..*", ".", name) for name in weights if name not in chosen}))
        if not chosen:
            problem = f"no name in {self.location} begins with it; they begin with {others}"
            raise ConfigError(f"{role}.prefix", prefix, problem)
        if others and not quiet:
            log.log(NOTE, "%s=%s: takes the names below %s, not %s", self.key, self.location, start, others)
        return chosen

    def _parsed(self, role: str, quiet: bool) -> StateDict:
        if not _is_safetensors(self.path, self.content):
            return _read_torch(self, role, quiet)
        try:
            return StateDict(load(self.content))
        except Exception as error:  # a damaged file may raise anything
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ConfigError:
        if self.is_cut_off:
            return ConfigError(
                self.key, self.location, f"is cut off; copy it again (safetensors: {_first_line(error)})"
            )
        return ConfigError(self.key, self.location, f"damaged or not safetensors: {_first_line(error)}")

    @property
    def is_cut_off(self) -> bool:
        """True if it begins as a file of weights does, and its end is missing."""
        if self.content.startswith(_ZIP):
            return not zipfile.is_zipfile(io.BytesIO(self.content))
        begin = 8 + _header_size(self.content)
        if self.content[8:9] != b"{":
            return False
        try:
            header = json.loads(self.content[8:begin])
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
            return bool(begin + max(ends, default=0) > len(self.content))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # half a header, or none
            return begin > len(self.content)


def digest_of(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and content of a network's weights, hex."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: Path, key: str, role: str = "") -> StateDict:
    """The weights in a file; raises the errors of `WeightsFile.open` and `WeightsFile.tensors`."""
    return WeightsFile.open(path, key).tensors(role)


def load_into(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    key: str,
    path: Path | str,
    num_classes: int | None = None,
    *,
    quiet: bool = False,
) -> None:
    """Loads all weights by name; see `fit_weights`, and docs/weights.md for what is left out.

    Args:
        quiet: True if another worker, or a later reading of the same file, says what is left out.

    Raises:
        ConfigError: names or shapes differ, or a weight is not finite; the first ones are listed.
    """
    try:
        prefix_key = "teacher.prefix" if key.startswith("teacher") else None
        fitted = fit_weights(network, StateDict.of(weights), num_classes, prefix_key)
    except ValueError as error:
        raise ConfigError(key, str(path), str(error)) from None
    if fitted.ignored and not quiet:
        count = f"{len(fitted.ignored)} name{'s' * (len(fitted.ignored) > 1)}"
        log.log(NOTE, "%s=%s: ignores %s that the network lacks: %s", key, path, count, listed(fitted.ignored))


def _is_safetensors(path: Path, head: bytes) -> bool:
    """True by the file's name, or if it begins with the length of a header (eight bytes) and that header, in JSON."""
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _header_size(head: bytes) -> int:
    return int.from_bytes(head[:8], "little")


def _about(content: bytes) -> dict[str, object]:
    """The metadata in the JSON header of a safetensors file; raises ValueError where there is no header."""
    header = json.loads(content[8 : 8 + _header_size(content)])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    try:
        about = json.loads((metadata or {}).get("zskt_dist", "{}"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _read_torch(file: WeightsFile, role: str, quiet: bool) -> StateDict:
    key, location = file.key, file.location
    if torch.__version__ < _SAFE_TORCH:
        problem = f"is not read with torch {torch.__version__}, which a file can make run code (CVE-2025-32434)"
        raise ConfigError(key, location, f"{problem}; use torch {_SAFE_TORCH} or newer, or safetensors")
    if (size := _unpacked(file.content)) > _MOST_UNPACKED * len(file.content):
        problem = f"has {len(file.content):,} bytes and unpacks to {size:,}, and torch.save packs nothing"
        raise ConfigError(key, location, f"{problem}; take a file that torch.save has written")
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_HARMLESS):
            loaded = torch.load(io.BytesIO(file.content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything; no code in it has run
        if file.is_cut_off:
            raise ConfigError(key, location, f"is cut off; copy it again (torch: {_first_line(error)})") from None
        raise ConfigError(key, location, _why_not(error)) from None
    found = list(find_state_dicts(loaded, role))
    if not found:
        names = ", ".join(map(printable, list(loaded)[:8])) if isinstance(loaded, Mapping) else type(loaded).__name__
        problem = f"expected a state dict (names to tensors) and found only: {names or 'nothing'}; weights may lie"
        where = f"under {', '.join(PLAIN[:3])}, {AVERAGED[0]} and the like: save model.state_dict()"
        raise ConfigError(key, location, f"{problem} {where}")
    chosen, rest = found[0], ", ".join(each.place for each in found[1:] if each.place)
    if chosen.place and not quiet:
        level = logging.WARNING if rest else NOTE  # where there are others, the choice may be a wrong one
        others = rest and f", not those under {rest}"
        log.log(level, "%s=%s: takes the weights under %s%s", key, location, chosen.place, others)
    return chosen.weights


def _unpacked(content: bytes) -> int:
    """Bytes that an archive unpacks to; 0 for what is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        return 0


def _why_not(error: Exception) -> str:
    """Why `torch.load(weights_only=True)` refused a file."""
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
