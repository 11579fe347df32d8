"""Loads weights as others save them into a network: by its own loaders, whatever prefix the names have.

Three things are done to a file's names before the network's loaders see them, and only where that leads into the
network: one prefix is taken off all of them, and so is what wrappers such as DataParallel add anywhere. The loaders
then translate names of earlier versions, and say what is missing and what they do not know.
"""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zskt_dist.models.construction import describe_error
from zskt_dist.networks.hugging_face import translated
from zskt_dist.networks.state_dicts import StateDict, listed, printable

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names under which DataParallel, torch.compile, FSDP and the like hold the module that they wrap."""
_PROFILED = ("total_ops", "total_params")
"""Names that thop leaves in every module of a network that it has profiled."""
_ASIDE = re.compile(
    r"(?i)((\w+_)?loss(es)?(_\w+)?|(\w+_)?criteri(on|a)(_\w+)?|(\w+_)?objective|(\w+_)?metrics?|(\w+_)?acc(uracy)?"
    r"|aux(\d+|(iliary)?_?(head|logits|classifier)s?\d*))"
)
"""Names of modules that take part in training or in measuring, and never in a network's answer."""
_RESHAPED = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\(\[([\d, ]*)\]\) from checkpoint, "
    r"the shape in current model is torch\.Size\(\[([\d, ]*)\]\)"
)
"""The words of `load_state_dict`, which tells of shapes in no other way."""

_DEPTH = 8
"""Most parts of a prefix; a name in a file may have endless parts."""

Shape = tuple[int, ...]


class Fitted(NamedTuple):
    """How weights were loaded: the prefix that was taken off, and the names that were left out."""

    prefix: str
    ignored: list[str]


@dataclass
class _Attempt:
    """The weights below a prefix, loaded into a network.

    Attributes:
        loaded: By the names that the network's loaders were given.
        missing: Names of the network that got no weights.
        unexpected: Names that its loaders do not know.
        reshaped: The file's shape and the network's, by name.
        error: What a loader raised.
        beside: Weights that do not lie below the prefix.
    """

    loaded: StateDict
    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    error: str = ""
    prefix: str = ""
    beside: dict[str, Tensor] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return not (self.missing or self.reshaped or self.error)

    @property
    def foreign(self) -> list[str]:
        """The unexpected names that may be layers of another architecture."""
        return [name for name in self.unexpected if not _is_aside(name, self.loaded.get(name))]

    def problem(self, num_classes: int | None) -> str:
        """What does not fit, in words."""
        shapes = [f"{name} is {was} instead of {needed}" for name, (was, needed) in self.reshaped.items()]
        lists = {"missing": self.missing, "unexpected": self.foreign, "wrong shape": shapes, "beside": [*self.beside]}
        parts = [f"{what}: {listed(names)}" for what, names in lists.items() if names]
        below = f" below the prefix {self.prefix}" if self.prefix else ""
        words = _in_words(list(self.reshaped.values()), num_classes)
        return "; ".join([f"does not fit the architecture{below}{words}", *parts, *filter(None, [self.error])])


def fit_weights(
    network: nn.Module, weights: StateDict, num_classes: int | None = None, prefix_key: str | None = None
) -> Fitted:
    """Loads weights by name; batch norm's counters, which older files lack, start at 0.

    On the meta device nothing is copied, but everything is checked.

    Args:
        num_classes: Length of the network's logits, for messages.
        prefix_key: Configuration key that can say a prefix, for messages; None: there is none.

    Raises:
        ValueError: names or shapes differ, more than one prefix would do, or a weight is not finite. Then the network
            may hold some of the weights.
    """
    for name, tensor in weights.items():
        if kind := _unusual(tensor):
            raise ValueError(f"holds {printable(name)} as a {kind}; save all weights as plain tensors")
    prefixes = [""] if weights.at_top else _prefixes(network, weights)
    tried = [_attempt(network, weights, each) for each in prefixes]
    fitting = [each for each in tried if each.fits]
    if not fitting:
        raise ValueError(tried[0].problem(num_classes))
    found = next((each for each in fitting if each.prefix), fitting[0])
    remedy = f"say {prefix_key}={found.prefix}" if prefix_key else "save those of the network alone"
    if len(fitting) > 1:
        places = " and ".join(f"below {each.prefix}" if each.prefix else "at the top" for each in fitting)
        if prefix_key and not all(each.prefix for each in fitting):
            remedy += f", or {prefix_key}='' for those at the top"
        raise ValueError(f"holds the network's weights more than once, {places}; to choose, {remedy}")
    if found.foreign and not weights.at_top:
        raise ValueError(found.problem(num_classes))
    beside = [name for name, tensor in found.beside.items() if not _is_aside(name, tensor)]
    if beside:
        problem = f"fits below the prefix {found.prefix}, but beside it lies what may be a part of the network as well"
        raise ValueError(f"{problem}: {listed(beside)}; if it is not, {remedy}")
    if found is not tried[-1]:
        _attempt(network, weights, found.prefix)
    used = {name: tensor for name, tensor in found.loaded.items() if name not in found.unexpected}
    own = network.state_dict()
    whole = (name for name in used if name in own and own[name].is_floating_point() > used[name].is_floating_point())
    if broken := next(whole, None):
        kind = str(used[broken].dtype).removeprefix("torch.")
        raise ValueError(f"holds {printable(broken)} as {kind}, where the network has fractions; quantized is not read")
    if broken := not_finite(used.items()):
        raise ValueError(f"has weights that are not finite, first in {printable(broken)}")
    variances = (name for name, tensor in found.loaded.items() if name.endswith("running_var") and (tensor < 0).any())
    if broken := next(variances, None):
        raise ValueError(f"has negative variances, first in {printable(broken)}")
    return Fitted(found.prefix, [*found.unexpected, *found.beside])


def reshaped(network: nn.Module, weights: StateDict) -> dict[str, tuple[Shape, Shape]]:
    """The file's shape and the network's, by name, where they differ, below the likeliest prefix.

    The network may hold some of the weights afterwards.
    """
    prefix = "" if weights.at_top else _prefixes(network, weights)[0]
    return _attempt(network, weights, prefix).reshaped


def _unusual(tensor: Tensor) -> str | None:
    """What a tensor is if it is not one of plain numbers; None where it is."""
    if tensor.is_meta:
        return "meta tensor, which has no numbers"
    if tensor.is_quantized:
        return "quantized tensor (tensor.dequantize() makes it plain)"
    if tensor.is_complex():
        return "tensor of complex numbers"
    return None if tensor.layout == torch.strided else f"{tensor.layout} tensor (tensor.to_dense() makes it plain)"


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds an infinity or no number; None where all are finite."""
    return next((name for name, tensor in tensors if not torch.isfinite(tensor).all()), None)


def _prefixes(network: nn.Module, weights: StateDict) -> list[str]:
    """The prefixes without which the most names are the network's: mostly one, or none.

    Where no name is the network's, its loaders may still know them all: then those that all names share.
    """
    own = network.state_dict().keys()
    reached: defaultdict[str, set[str]] = defaultdict(set)
    for name in weights:
        for prefix in islice(_beginnings(name), _DEPTH):
            placed = _placed(network, name.removeprefix(prefix))
            reached[prefix] |= {placed} & own
    most = max(map(len, reached.values()), default=0)
    if not most:
        return [prefix for prefix in reached if all(name.startswith(prefix) for name in weights)] or [""]
    return [prefix for prefix, names in reached.items() if len(names) == most]


def _beginnings(name: str) -> Iterator[str]:
    """Yields what may be a prefix of a name; one that ends in a wrapper leads where the one before it leads."""
    yield ""
    for dot in re.finditer(r"([^.]*)\.", name):
        if dot[1] not in _WRAPPERS:
            yield name[: dot.end()]


def _attempt(network: nn.Module, weights: StateDict, prefix: str) -> _Attempt:
    """Loads the weights below a prefix, by torch's loaders, or else by those of the network's library."""
    part = _below(network, weights, prefix)
    found = _load(network, part)
    if not found.fits and (names := translated(network, part)) is not None:
        other = _load(network, names)
        found = other if other.fits else found
    found.prefix = prefix
    found.beside = {name: tensor for name, tensor in weights.items() if not name.startswith(prefix)}
    return found


def _load(network: nn.Module, part: StateDict) -> _Attempt:
    own = network.state_dict(keep_vars=True)
    counters = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    given = StateDict({name: torch.zeros_like(own, device="cpu") for name, own in counters.items()} | part)
    given._metadata = part._metadata
    keys, error = _run_loaders(network, given)
    if keys is None and given._metadata is None:  # some loaders insist on a version
        given._metadata = getattr(network.state_dict(), "_metadata", None)
        keys, error = _run_loaders(network, given)
    missing, unexpected = keys or ([], [])
    reshaped = {name: (_shape(was), _shape(needed)) for name, was, needed in _RESHAPED.findall(error)}
    return _Attempt(given, _untied(network, missing), unexpected, reshaped, "" if reshaped else " ".join(error.split()))


def _run_loaders(network: nn.Module, given: StateDict) -> tuple[tuple[list[str], list[str]] | None, str]:
    """Missing and unexpected names, None where a loader has failed before they were known; and what was raised."""
    found: list[Any] = []
    handle = network.register_load_state_dict_post_hook(lambda module, keys: found.append(keys))
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns that nothing is copied to the meta device
            network.load_state_dict(given, strict=False)
    except Exception as error:  # foreign code may raise anything
        return found[-1] if found else None, str(error) if found else describe_error(error)
    finally:
        handle.remove()
    return found[-1], ""


def _below(network: nn.Module, weights: StateDict, prefix: str) -> StateDict:
    """The weights below a prefix by their places in the network; two never get one place."""
    below = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    part = StateDict()
    for name, tensor in below.items():
        placed = _placed(network, name)
        taken = placed != name and (placed in below or placed in part)
        part[name if taken else placed] = tensor
    if weights._metadata is not None:
        paths = {f"{path}.".removeprefix("."): about for path, about in weights._metadata.items()}
        inner = {path.removeprefix(prefix): about for path, about in paths.items() if path.startswith(prefix)}
        part._metadata = {_placed(network, path).removesuffix("."): about for path, about in inner.items()}
    return part


def _placed(network: nn.Module, name: str) -> str:
    """`name` without the wrappers that the network lacks, and with those that it has.

    Where no module of that name is there, the rest is left to the loader of the last one.
    """
    module, path, parts = network, [], name.split(".")
    while len(parts) > 1:
        inner = {each: child for each, child in module._modules.items() if child is not None}
        own = next((each for each in _WRAPPERS if each in inner), None)
        if parts[0] in inner:
            step = parts.pop(0)
        elif parts[0] in _WRAPPERS:
            parts.pop(0)
            continue
        elif own is not None:
            step = own
        else:
            break
        path.append(step)
        module = inner[step]
    return ".".join([*path, *parts])


def _untied(network: nn.Module, missing: list[str]) -> list[str]:
    """The missing names whose weights are not those of another name that was loaded; safetensors saves one of them."""
    tensors = {name: each for name, each in network.state_dict(keep_vars=True).items() if isinstance(each, Tensor)}
    places = {
        name: (each.untyped_storage()._cdata, each.storage_offset(), each.shape, each.stride())
        for name, each in tensors.items()
    }
    loaded = {place for name, place in places.items() if name not in missing}
    return [name for name in missing if places.get(name) not in loaded]


def _is_aside(name: str, tensor: Tensor | None) -> bool:
    """True for what has no part in a network's answer: what is counted or numbered, profiles, losses and metrics.

    Layers of another architecture have weights, which are learned, so they are not whole numbers.
    """
    learned = tensor is None or tensor.is_floating_point() or tensor.is_complex()
    parts = name.split(".")
    return not learned or parts[-1] in _PROFILED or any(map(_ASIDE.fullmatch, parts))


def _shape(text: str) -> Shape:
    return tuple(int(size) for size in text.split(",") if size.strip())


def _in_words(reshaped: list[tuple[Shape, Shape]], num_classes: int | None) -> str:
    """The cause of wrong shapes in words, where it is clear."""
    heads = {(was[:1], needed[:1]) for was, needed in reshaped if was[1:] == needed[1:]}
    if len(heads) == 1:
        ((was, needed),) = heads
        if num_classes and needed == (num_classes,) and was:
            named = ""
            if was[0] > num_classes:
                named = (
                    f"; where the images lack some, say data.num_classes={was[0]} if labels are numbers, and "
                    f"data.class_names=[…] with all {was[0]} if they are names"
                )
            return f": it was trained for {was[0]} classes, and here there are {num_classes}{named}"
    images = [(was, needed) for was, needed in reshaped if len(was) == len(needed) == 4 and was[1] != needed[1]]
    if len(reshaped) == len(images) == 1:
        was, needed = images[0]
        return f": it was trained on images of {was[1]} channels, and here they have {needed[1]}"
    return ""
