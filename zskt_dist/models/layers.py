"""The outputs of a network's layers, found by a forward pass, and the layers whose attention maps can be compared."""

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zskt_dist.models.checkpointing import blocks
from zskt_dist.models.construction import ImageShape
from zskt_dist.models.tensors import device_of

Size = tuple[int, int]
"""(H, W)"""

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_PASSING = (nn.Identity, nn.modules.dropout._DropoutNd)


class Layer(NamedTuple):
    """A module that takes part in a forward pass.

    Attributes:
        name: Name in `network.named_modules()`.
        kind: Name of its class.
        output: Shape of its output for one image; None where that is not a single tensor.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None

    @property
    def size(self) -> Size:
        """Size of the layer's map; only for layers with output [1, C, H, W]."""
        assert self.output is not None
        return self.output[2], self.output[3]

    def __str__(self) -> str:
        """`layer1 8x8`."""
        return f"{self.name} {self.size[0]}x{self.size[1]}"


def observe(network: nn.Module, image_shape: ImageShape) -> list[Layer]:
    """All modules that an image of zeros runs through, in the order in which they finish; the network is unchanged.

    For a module that is called several times, the last call counts.
    """
    seen: dict[str, Layer] = {}

    def note(name: str, module: nn.Module, _inputs: object, output: object) -> None:
        seen.pop(name, None)  # to the end
        seen[name] = Layer(name, type(module).__name__, tuple(output.shape) if isinstance(output, Tensor) else None)

    handles = [module.register_forward_hook(partial(note, name)) for name, module in network.named_modules() if name]
    modes = [(module, module.training) for module in network.modules()]
    device = device_of(network)
    try:
        with torch.no_grad(), device:  # on the meta device the network makes tensors of its own there, too
            network.eval()(torch.zeros(1, *image_shape))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return list(seen.values())


def is_map(layer: Layer, image_shape: ImageShape) -> bool:
    """True if the layer's output is [1, C, H, W] with more than one pixel, in the proportions of the image.

    That is, H and W are those of the image divided by one number, both rounded up or both down. So the [1, H, W, C] of
    Swin transformers is not a map.
    """
    match layer.output:
        case (_, _, height, width):
            return min(height, width) > 1 and _in_proportion((height, width), image_shape)
    return False


def is_channels_last(layer: Layer, image_shape: ImageShape) -> bool:
    """True if the layer's output is a map [1, H, W, C]."""
    match layer.output:
        case (_, height, width, _):
            return _in_proportion((height, width), image_shape) and not _in_proportion(layer.size, image_shape)
    return False


def declared_layers(network: nn.Module) -> tuple[str, ...]:
    """The layers that a network itself declares, in its class attribute `attention_layers`."""
    names = getattr(network, "attention_layers", ())
    are_names = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
    return tuple(names) if are_names else ()


def candidates(network: nn.Module, image_shape: ImageShape, layers: Sequence[Layer] | None = None) -> list[Layer]:
    """Layers whose attention maps may be compared, in the order of `observe`: those that the network declares.

    If it declares none, these are all layers with maps, except those
    - layers inside a module that gives a map too, unless nothing around the layer has its size: their computation is
      not finished. `nn.Sequential` does not count, as it is only a chain of computations;
    - normalisation, which removes what a map shows (layer norm all of it), and dropout;
    - layers before the blocks of a transformer, which give tokens: these are linear embeddings of the image.

    Args:
        layers: Result of `observe` for the network; None: it is called here.
    """
    layers = observe(network, image_shape) if layers is None else layers
    if names := declared_layers(network):
        return [layer for layer in layers if layer.name in names and is_map(layer, image_shape)]
    modules = dict(network.named_modules())
    transformer = set(blocks(network))
    tokens = [n for n, layer in enumerate(layers) if modules[layer.name] in transformer and _tokens(layer, image_shape)]
    around = {
        layer.name for layer in layers if _is_spatial(layer) and not isinstance(modules[layer.name], nn.Sequential)
    }
    fit = [
        (_depth(layer.name, around), layer)
        for layer in layers[max(tokens, default=-1) + 1 :]
        if is_map(layer, image_shape) and not isinstance(modules[layer.name], _NORMS + _PASSING)
    ]
    least: dict[Size, int] = {}
    for depth, layer in fit:
        least[layer.size] = min(depth, least.get(layer.size, depth))
    return [layer for depth, layer in fit if depth == least[layer.size]]


def last_of_each_size(layers: Sequence[Layer]) -> dict[Size, Layer]:
    """The last layer with a map of each size, largest first; a map larger than an earlier one is left out.

    Such a map is an enlarged small one, as from the pooling of VGG on small images, or not a map at all.
    """
    last: dict[Size, Layer] = {}
    for layer in layers:
        if all(layer.size[0] <= height and layer.size[1] <= width for height, width in last):
            last[layer.size] = layer
    return last


def pair_by_size(teacher: Sequence[Layer], student: Sequence[Layer], *, resize: bool) -> list[tuple[Layer, Layer]]:
    """Pairs of the last layers of equal size, largest first.

    Args:
        resize: True if sizes may differ: two are paired where each is the other network's nearest.
    """
    mine, theirs = last_of_each_size(teacher), last_of_each_size(student)
    if resize:
        nearest = [(size, _nearest(size, theirs)) for size in mine if theirs]
        sizes = [(a, b) for a, b in nearest if _nearest(b, mine) == a]
    else:
        sizes = [(size, size) for size in mine if size in theirs]
    return [(mine[a], theirs[b]) for a, b in sizes]


def _nearest(size: Size, others: Iterable[Size]) -> Size:
    """The nearest of other sizes, by the factors between heights and between widths."""
    return min(others, key=lambda other: abs(log(size[0] / other[0])) + abs(log(size[1] / other[1])))


def _in_proportion(size: Size, image_shape: ImageShape) -> bool:
    return abs(size[0] * image_shape.width - size[1] * image_shape.height) < max(image_shape.height, image_shape.width)


def _is_spatial(layer: Layer) -> bool:
    return layer.output is not None and len(layer.output) == 4


def _depth(name: str, around: Collection[str]) -> int:
    """Number of modules in `around` that contain the module of that name."""
    parts = name.split(".")
    return sum(".".join(parts[:length]) in around for length in range(1, len(parts)))


def _tokens(block: Layer, image_shape: ImageShape) -> bool:
    """True if a block's output is neither a map nor a vector: [1, N, C], [1, H, W, C], or more than one tensor."""
    return block.output is None or len(block.output) == 3 or is_channels_last(block, image_shape)
