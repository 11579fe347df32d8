"""What the layers of any network give, found by a forward pass, and which of them show where it looks."""

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
        name: As in `network.named_modules()`.
        kind: Name of its class.
        output: Shape of what it gives for one image; None: not one tensor.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None

    @property
    def size(self) -> Size:
        """Of its map; for layers that give [1, C, H, W]."""
        assert self.output is not None
        return self.output[2], self.output[3]

    def __str__(self) -> str:
        """`layer1 8x8`."""
        return f"{self.name} {self.size[0]}x{self.size[1]}"


def observe(network: nn.Module, image_shape: ImageShape) -> list[Layer]:
    """All modules that an image of zeros runs through, in the order in which they finish; the network is unchanged.

    A module that is called several times counts as it ends the last time.
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
    """True if it gives [1, C, H, W] of more than one pixel, in the proportions of the image.

    That is: H and W are those of the image divided by one number, both rounded up or both down. So [1, H, W, C], as of
    Swin transformers, is none.
    """
    match layer.output:
        case (_, _, height, width):
            return min(height, width) > 1 and _in_proportion((height, width), image_shape)
    return False


def is_channels_last(layer: Layer, image_shape: ImageShape) -> bool:
    """True if it gives [1, H, W, C]."""
    match layer.output:
        case (_, height, width, _):
            return _in_proportion((height, width), image_shape) and not _in_proportion(layer.size, image_shape)
    return False


def declared_layers(network: nn.Module) -> tuple[str, ...]:
    """The names that a network itself tells: its class attribute `attention_layers`."""
    names = getattr(network, "attention_layers", ())
    is_told = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_told else ()


def candidates(network: nn.Module, image_shape: ImageShape, layers: Sequence[Layer] | None = None) -> list[Layer]:
    """Layers whose attention maps may be compared, in the order of `observe`: those that the network declares.

    Of one that declares none all maps count, but for those
    - inside a module that gives a map of this size or another, unless nothing around it has this size: they are of a
      computation that is not finished. `nn.Sequential` is a chain of computations, and none itself;
    - of normalisation, which removes what a map shows, layer norm all of it, and of dropout;
    - before the blocks of a transformer, which give tokens: they are linear embeddings of the image.

    Args:
        layers: What `observe` tells of the network; None: it is asked.
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
    """The last layer with a map of each size, largest first; what is larger than one before it is passed over.

    For that is a small map blown up, as by the pooling of VGG on small images, or a matrix of something else.
    """
    last: dict[Size, Layer] = {}
    for layer in layers:
        if all(layer.size[0] <= height and layer.size[1] <= width for height, width in last):
            last[layer.size] = layer
    return last


def pair_by_size(teacher: Sequence[Layer], student: Sequence[Layer], *, resize: bool) -> list[tuple[Layer, Layer]]:
    """The last layers of equal size, largest first.

    Args:
        resize: Sizes need not be equal: two are paired where neither network has one that is nearer to the other's.
    """
    mine, theirs = last_of_each_size(teacher), last_of_each_size(student)
    if resize:
        nearest = [(size, _nearest(size, theirs)) for size in mine if theirs]
        sizes = [(a, b) for a, b in nearest if _nearest(b, mine) == a]
    else:
        sizes = [(size, size) for size in mine if size in theirs]
    return [(mine[a], theirs[b]) for a, b in sizes]


def _nearest(size: Size, others: Iterable[Size]) -> Size:
    """By the factors between heights and between widths."""
    return min(others, key=lambda other: abs(log(size[0] / other[0])) + abs(log(size[1] / other[1])))


def _in_proportion(size: Size, image_shape: ImageShape) -> bool:
    return abs(size[0] * image_shape.width - size[1] * image_shape.height) < max(image_shape.height, image_shape.width)


def _is_spatial(layer: Layer) -> bool:
    return layer.output is not None and len(layer.output) == 4


def _depth(name: str, around: Collection[str]) -> int:
    """In how many modules of `around` the module of that name lies."""
    parts = name.split(".")
    return sum(".".join(parts[:length]) in around for length in range(1, len(parts)))


def _tokens(block: Layer, image_shape: ImageShape) -> bool:
    """Neither a map nor a vector for each image, but [1, N, C], [1, H, W, C], or more than one tensor."""
    return block.output is None or len(block.output) == 3 or is_channels_last(block, image_shape)
