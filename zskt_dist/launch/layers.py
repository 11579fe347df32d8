"""Tables of the layers of networks, and of those that `loss.taps: auto` would compare."""

from collections.abc import Mapping, Sequence

from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from torch import nn

from zskt_dist.config import Config, load_config
from zskt_dist.errors import UserError
from zskt_dist.models import (
    ImageShape,
    Layer,
    NetworkError,
    ask,
    build_network,
    candidates,
    input_spec_of_arch,
    last_of_each_size,
    observe,
)
from zskt_dist.networks.attention import pair_automatically
from zskt_dist.networks.building import outlines
from zskt_dist.networks.inputs import open_inputs
from zskt_dist.tasks.base import check_images, declarations
from zskt_dist.training.job import Job


def list_layers(
    words: Sequence[str],
    *,
    config_file: str | None,
    image_shape: Sequence[int] | None,
    num_classes: int | None,
    everything: bool,
    console: Console,
) -> None:
    """Prints the layers of the architecture that `words` names, or else of both networks of a configuration.

    Args:
        words: An architecture, or `dotted.key=value` settings.
        everything: All modules instead of those with attention maps.

    Raises:
        UserError: there is no such network or configuration, or it cannot take these images.
    """
    names = [word for word in words if "=" not in word]
    shape = ImageShape(*image_shape) if image_shape else None
    if not names:
        config = load_config(config_file, words)
        if shape is None or num_classes is None:
            job = Job.plan("train", config)
            check_images(job.stages)
            inputs = open_inputs(config, declarations(job.stages, {}), needs_train=job.needs_training_images)
            shape, num_classes = shape or inputs.image_shape, num_classes or inputs.num_classes
        _print_pair(config, shape, num_classes, everything, console)
    elif len(words) > 1 or config_file:
        raise UserError(f"{names[0]!r}: give one architecture, or a configuration with its key=value settings")
    else:
        shape = shape or input_spec_of_arch(names[0]).image_shape or ImageShape(3, 32, 32)
        try:
            network = build_network(names[0], shape, num_classes or 10)
        except ValueError as error:
            raise UserError(f"{names[0]!r}: {error}") from None
        try:
            ask(network, shape)
        except NetworkError as error:
            raise UserError(f"{names[0]!r}: {error}; change --image-shape or --classes") from None
        last = last_of_each_size(candidates(network, shape)).values()
        title = f"{names[0]}, images of {_times(shape)}"
        console.print(_table(title, network, shape, {layer.name: "*" for layer in last}, everything))
        console.print("* the last of its size, which loss.taps=auto compares where the other network has the size too")


def _print_pair(config: Config, shape: ImageShape, num_classes: int, everything: bool, console: Console) -> None:
    """Both networks; what would be compared has the same number in both tables."""
    teacher, student = outlines(config, ("teacher", "student"), shape, num_classes).values()
    attention = pair_automatically(config, teacher, student, shape)
    tables = [
        _table(f"{role} {getattr(config, role).arch}", network, shape, _numbers(names), everything)
        for role, network, names in (("teacher", teacher, attention.teacher), ("student", student, attention.student))
    ]
    console.print(Columns(tables, padding=(0, 4)))
    console.print(f"images of {_times(shape)}; loss.taps=auto compares {attention}", soft_wrap=True, highlight=False)
    if attention.warning:
        console.print(attention.warning, style="yellow", soft_wrap=True, highlight=False)


def _numbers(names: Sequence[str]) -> dict[str, str]:
    return {name: str(number) for number, name in enumerate(names, start=1)}


def _table(
    title: str, network: nn.Module, image_shape: ImageShape, marks: Mapping[str, str], everything: bool
) -> Table:
    """Layers in the order in which they are computed; `marks` are by name."""
    table = Table(title=title, title_justify="left")
    for column in ("", "layer", "type", "output"):
        table.add_column(column, overflow="fold")
    layers = observe(network, image_shape)
    for layer in layers if everything else candidates(network, image_shape, layers):
        table.add_row(marks.get(layer.name, ""), layer.name, layer.kind, _output(layer))
    return table


def _output(layer: Layer) -> str:
    return "no single tensor" if layer.output is None else _times(layer.output[1:])


def _times(shape: Sequence[int]) -> str:
    """`3x32x32`."""
    return "x".join(map(str, shape))
