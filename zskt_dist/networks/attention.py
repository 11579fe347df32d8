"""Which layers of teacher and student have their attention maps compared: as a configuration names them, or by size."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from zskt_dist.config import Config
from zskt_dist.config.inputs import Student, Teacher
from zskt_dist.errors import ConfigError, UserError, did_you_mean
from zskt_dist.models import (
    ImageShape,
    Layer,
    TappedNetwork,
    candidates,
    declared_layers,
    is_channels_last,
    last_of_each_size,
    observe,
    pair_by_size,
)


@dataclass(frozen=True)
class Attention:
    """Layers of teacher and student whose attention maps are compared; none: there is no attention term.

    Attributes:
        warning: Why fewer layers are compared than one would expect, and what to do; None: they are as expected.
    """

    pairs: tuple[tuple[Layer, Layer], ...] = ()
    warning: str | None = None

    @property
    def teacher(self) -> list[str]:
        return [teacher.name for teacher, _ in self.pairs]

    @property
    def student(self) -> list[str]:
        return [student.name for _, student in self.pairs]

    def as_json(self) -> list[dict[str, Any]]:
        """For `result.json`; `size` is that at which maps are compared, [H, W]."""
        return [
            {"teacher": teacher.name, "student": student.name, "size": list(map(min, teacher.size, student.size))}
            for teacher, student in self.pairs
        ]

    def __str__(self) -> str:
        """`layer1 with features.3 8x8`, for each pair: the teacher's, and the student's."""
        pairs = (f"{one.name if one.size == other.size else one} with {other}" for one, other in self.pairs)
        return ", ".join(pairs) or "no layers"


def pair_layers(
    config: Config, teacher: nn.Module, student: nn.Module, image_shape: ImageShape, *, weight: str = "loss"
) -> Attention:
    """What a configuration has compared, `loss.taps`; nothing with beta = 0. Needs a forward pass of each network.

    Args:
        weight: Section whose `beta` weighs the attention term, `loss` or `distill`.

    Raises:
        ConfigError: a layer that is asked for does not exist or gives no map, or maps asked for differ in size.
        UserError: a network declares a layer that does not exist or gives no map.
    """
    loss, beta = config.loss, getattr(config, weight).beta
    if not beta:
        return Attention()
    if loss.taps.teacher is None and loss.attention_layers is None:
        return pair_automatically(config, teacher, student, image_shape)
    find = _at_positions if loss.taps.teacher is None else _named
    of_teacher = find(config, "teacher", teacher, image_shape)
    of_student = find(config, "student", student, image_shape)
    pairs = tuple(zip(of_teacher, of_student, strict=True))
    if not loss.resize_maps and any(mine.size != theirs.size for mine, theirs in pairs):
        problem = f"attention maps do not pair: teacher's {_listed(of_teacher)} and student's {_listed(of_student)}"
        raise ConfigError(f"{weight}.beta", beta, f"{problem}; use loss.resize_maps=true or {weight}.beta=0")
    return Attention(pairs)


def pair_automatically(config: Config, teacher: nn.Module, student: nn.Module, image_shape: ImageShape) -> Attention:
    """`loss.taps: auto`: all layers that both networks declare, where their sizes agree, else the last of each size.

    Raises:
        UserError: a network declares a layer that does not exist or gives no map.
    """
    networks = {"teacher": teacher, "student": student}
    resize = config.loss.resize_maps
    seen = {role: _seen(network, image_shape) for role, network in networks.items()}
    told = [_declared(config, role, network, image_shape, seen[role]) for role, network in networks.items()]
    if all(told) and [layer.size for layer in told[0]] == [layer.size for layer in told[1]]:
        return Attention(tuple(zip(*told, strict=True)))
    of_teacher, of_student = (
        candidates(network, image_shape, list(seen[role].values())) for role, network in networks.items()
    )
    pairs = tuple(pair_by_size(of_teacher, of_student, resize=resize))
    if pairs and not all(told):
        return Attention(pairs)
    found = f"teacher: {_last(of_teacher)}; student: {_last(of_student)}"
    if pairs:
        return Attention(pairs, f"attention maps of teacher and student pair by size, and not all of them ({found})")
    resizing = "loss.resize_maps=true compares unequal sizes, " if of_teacher and of_student and not resize else ""
    return Attention(
        warning=f"no attention term: teacher and student have no size of attention maps in common ({found}); {resizing}"
        "loss.taps.teacher=[…] loss.taps.student=[…] names layers as `python -m zskt_dist.layers` lists them, "
        "loss.taps=none asks for none"
    )


def tap_pair(
    config: Config, teacher: nn.Module, student: nn.Module, attention: Attention, *, weight: str = "loss"
) -> tuple[TappedNetwork, TappedNetwork]:
    """Teacher and student with taps on the layers that are compared.

    Raises:
        ConfigError: the teacher has no features for the diversity term, which goes with `weight="loss"`.
    """
    diversity = config.generator_terms.diversity
    features = weight == "loss" and diversity != 0
    if features and not any(isinstance(module, nn.Linear) for module in teacher.modules()):
        problem = "needs a teacher with a linear layer, whose input is compared; use generator_terms.diversity=0"
        raise ConfigError("generator_terms.diversity", diversity, problem)
    return TappedNetwork(teacher, attention.teacher, features=features), TappedNetwork(student, attention.student)


def _at_positions(config: Config, role: str, network: nn.Module, image_shape: ImageShape) -> list[Layer]:
    """`loss.attention_layers`, of those that the network declares."""
    layers = _declared(config, role, network, image_shape, _seen(network, image_shape))
    chosen = config.loss.attention_layers or ()
    if any(position >= len(layers) for position in chosen):
        problem = f"{role} has {len(layers)} block outputs, numbered from 0"
        raise ConfigError(
            "loss.attention_layers", list(chosen), problem if layers else f"{role} declares none; use loss.taps"
        )
    return [layers[position] for position in chosen]


def _named(config: Config, role: str, network: nn.Module, image_shape: ImageShape) -> list[Layer]:
    """`loss.taps.teacher` or `loss.taps.student`."""
    seen = _seen(network, image_shape)
    chosen: tuple[str, ...] = getattr(config.loss.taps, role) or ()
    for name in chosen:
        problem = _unfit(name, network, seen, image_shape)
        if not problem and max(seen[name].size) == 1:
            problem = "gives maps of a single pixel, which are all alike"
        if problem:
            lister = f"; `python -m zskt_dist.layers {arch}` lists layers" if (arch := _arch(config, role)) else ""
            raise ConfigError(f"loss.taps.{role}", name, f"{problem}{lister}")
    return [seen[name] for name in chosen]


def _declared(
    config: Config, role: str, network: nn.Module, image_shape: ImageShape, seen: Mapping[str, Layer]
) -> list[Layer]:
    """What the network itself tells; raises UserError where it is wrong about a layer."""
    for name in declared_layers(network):
        if problem := _unfit(name, network, seen, image_shape):
            problem = f"declares attention_layers {name!r}: {problem}"
            if arch := _arch(config, role):
                raise ConfigError(f"{role}.arch", arch, problem)
            raise UserError(f"{role} {problem}")
    return [seen[name] for name in declared_layers(network)]


def _arch(config: Config, role: str) -> str | None:
    """Where the configuration names it; else the network may be one that was given, as from Python."""
    section: Teacher | Student = getattr(config, role)
    return section.arch if "arch" in section.model_fields_set else None


def _seen(network: nn.Module, image_shape: ImageShape) -> dict[str, Layer]:
    """By name, in the order of `observe`."""
    return {layer.name: layer for layer in observe(network, image_shape)}


def _unfit(name: str, network: nn.Module, seen: Mapping[str, Layer], image_shape: ImageShape) -> str:
    """Why a layer gives no attention maps; empty where it does, be they of one pixel."""
    if name not in seen:
        there = name in dict(network.named_modules())
        return "takes no part in a forward pass" if there else f"no such layer{did_you_mean(name, seen)}"
    layer = seen[name]
    if layer.output is None:
        return "gives no single tensor"
    shape = ", ".join(["B", *map(str, layer.output[1:])])
    if is_channels_last(layer, image_shape):
        return f"gives [{shape}] with its channels last, where maps are [B, C, H, W]"
    if len(layer.output) != 4:
        tokens = ", the tokens of a transformer" if len(layer.output) == 3 else ""
        return f"gives [{shape}]{tokens}, where maps are [B, C, H, W]"
    return ""


def _last(layers: Sequence[Layer]) -> str:
    return _listed(last_of_each_size(layers).values()) or "no layer with maps"


def _listed(layers: Iterable[Layer]) -> str:
    return ", ".join(map(str, layers))
