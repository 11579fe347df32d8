"""What a network's answers to a few images show: of what kind they are, and whether a gradient reaches the images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zskt_dist.models.construction import ImageShape, NetworkError, cannot_take
from zskt_dist.models.generator import input_scale
from zskt_dist.models.libraries import Statistics
from zskt_dist.models.logits import ReadLogits, logarithms
from zskt_dist.models.tensors import device_of

Answers = Literal["logits", "probabilities", "log-probabilities"]
_IMAGES = 4
_CLOSE = {torch.float64: 1e-5, torch.float32: 1e-3}
"""How far a sum of probabilities may be from 1, by type; more in half precision."""
_SPREAD = 0.05
"""Deviation of answers below which they may lie between 0 and 1 by chance."""


@dataclass(frozen=True)
class Examination:
    """What was found about a network in eval mode.

    Attributes:
        answers: What it returns. Of probabilities the logarithms are taken from now on.
        in_pairs: True if it fails on a single image; from now on such an image is asked for twice.
        varies: True if it answers the same images in another way each time.
        together: True if its answer to an image depends on the others of the batch.
        constant: True if it answers alike to all images.
        cut: Where the gradient is lost on its way to the images; empty where it arrives.
    """

    answers: Answers = "logits"
    in_pairs: bool = False
    varies: bool = False
    together: bool = False
    constant: bool = False
    cut: str = ""

    def __str__(self) -> str:
        """One line for people."""
        said = {
            "logits": "logits",
            "probabilities": "probabilities, of which the logarithms are taken",
            "log-probabilities": "log-probabilities, which serve as logits",
        }
        return "; ".join(
            [
                said[self.answers],
                *(["a single image is asked for twice, as it fails on one alone"] if self.in_pairs else []),
                *(["another answer to the same images each time"] if self.varies else []),
                *(["its answer to an image depends on the others in the batch"] if self.together else []),
                *(["the same for all images"] if self.constant else []),
                *([f"no gradient reaches the images: {self.cut}"] if self.cut else []),
            ]
        )

    @property
    def warning(self) -> str | None:
        """What spoils the training, whatever else is set; None where nothing does."""
        if not self.varies:
            return None
        return (
            "gives another answer to the same images each time, and chance cannot be learnt; let it draw nothing in "
            "eval mode: nn.Dropout in place of functional.dropout, no random order"
        )

    @property
    def problem(self) -> str | None:
        """Why no images can be made by its gradients, with the remedy; None where they can."""
        if not self.cut:
            return None
        return f"no gradient reaches the images, which are made by gradients: {self.cut}; take that out"


def examine(network: nn.Module, image_shape: ImageShape, statistics: Statistics | None = None) -> Examination:
    """Asks a network in eval mode about a few images, and has its output read as what it is.

    The network stays as it is, but for the hooks that read its output. Nothing is drawn from torch's random state.

    Args:
        statistics: Mean and standard deviation of its images; None: they are normalised.

    Raises:
        NetworkError: it fails, its answers are not finite, or they are independent probabilities of each class.
    """
    x = _images(image_shape, statistics, device_of(network))
    modes = [(module, module.training) for module in network.modules()]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            found = _examine(network.eval().requires_grad_(False), x.requires_grad_())
    except NetworkError:
        raise
    except Exception as error:  # foreign code may raise anything
        shape = "x".join(map(str, image_shape))
        raise NetworkError(cannot_take(f"of {shape}", error)) from None
    finally:
        for module, training in modes:
            module.training = training
        for parameter in learning:
            parameter.requires_grad_()
    if reading := ReadLogits.on(network):
        reading.found = found
    return found


@torch.no_grad()
def breaks_far_out(network: nn.Module, image_shape: ImageShape, statistics: Statistics | None = None) -> bool:
    """True if answers are not finite to some normal noise of up to eight times the deviation of ordinary images.

    Generators that are not bounded come this far, and a network in half precision, say, does not.

    Args:
        statistics: Mean and standard deviation of its images; None: they are normalised.
    """
    noise = torch.randn(32, *image_shape, generator=torch.Generator().manual_seed(0))
    if scale := input_scale(statistics):
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in scale)
        noise = noise * std + mean
    noise = noise.to(device_of(network))
    answers = (network(scale * noise) for scale in (1, 2, 4, 8))
    return not all(bool(torch.isfinite(answer).all()) for answer in answers)


def kind_of(values: Tensor) -> Answers:
    """What answers [B, classes] are; logits may lie as the others do by chance."""
    close = _CLOSE.get(values.dtype, 1e-2)
    values = values.double()
    if bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < close).all()):
        return "probabilities"
    return "log-probabilities" if bool((values.logsumexp(dim=1).abs() < close).all()) else "logits"


def _examine(network: nn.Module, x: Tensor) -> Examination:
    with torch.enable_grad():
        logits = network(x)
    values = logits.detach()
    if not torch.isfinite(values).all():
        raise NetworkError(
            "gives answers that are not finite (NaN or infinite) to ordinary images; look at its weights"
        )
    reading, answers = ReadLogits.on(network), kind_of(values)
    if answers == "logits" and _within_0_and_1(values) and _stays_within_0_and_1(network, x):
        raise NetworkError(
            "answers numbers from 0 to 1 that do not sum to 1, a probability of its own for each class; have it return "
            "what stands before the sigmoid, of classes that exclude each other"
        )
    if reading and answers == "probabilities":
        reading.probabilities, values = True, logarithms(values)
    in_pairs, alone = False, None
    try:
        alone = _ask(network, x[:1])
    except Exception:  # whatever foreign code raises
        if not reading:
            raise
        in_pairs = True
        reading.ask_in_pairs(network)
        _ask(network, x[:1])
    again = _ask(network, x)
    varies = not _alike(again, values)
    together = alone is not None and not varies and not _alike(alone, values[:1])
    return Examination(
        answers,
        in_pairs,
        varies,
        together,
        constant=bool((values == values[:1]).all()),
        cut="" if _reaches(logits, x) else _where_cut(network, x),
    )


@torch.no_grad()
def _ask(network: nn.Module, x: Tensor) -> Tensor:
    answer: Tensor = network(x)
    if len(answer) != len(x):
        raise NetworkError(f"answers {len(answer)} times to {len(x)} images")
    return answer


def _alike(one: Tensor, other: Tensor) -> bool:
    one, other = one.double(), other.double()
    return torch.allclose(one, other, rtol=0.01, atol=0.01 * float(other.abs().max()))


def _stays_within_0_and_1(network: nn.Module, x: Tensor) -> bool:
    """True if answers differ and yet stay in there, however far the images are from black and white."""
    found = [_ask(network, scale * x) for scale in (10, -10, 100)]
    return all(map(_within_0_and_1, found)) and float(found[-1].std()) > _SPREAD


def _within_0_and_1(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _reaches(logits: Tensor, x: Tensor) -> bool:
    """True if a gradient of the logits gets to the images; one of zeros only counts if all answers are alike."""
    if not logits.requires_grad:
        return False
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype, device=logits.device).view_as(logits)
    gradient: Tensor | None = torch.autograd.grad((logits * weights).sum(), x, allow_unused=True)[0]
    return gradient is not None and bool((gradient != 0).any() or (logits == logits[:1]).all())


class _Calls:
    """Notes for each module's call whether gradients are on, and whether they go in and come out."""

    def __init__(self) -> None:
        self.without: list[str] = []
        self.cutting: list[str] = []
        self.passing: list[str] = []

    def before(self, name: str, _module: nn.Module, _inputs: object) -> None:
        if not torch.is_grad_enabled():
            self.without.append(name)

    def after(self, name: str, module: nn.Module, inputs: Sequence[Any], output: Any) -> None:
        if _any_gradient(output):
            self.passing.append(name)
        elif _any_gradient(inputs):
            self.cutting.append(f"{name} ({type(module).__name__})")

    @contextmanager
    def noted(self, network: nn.Module) -> Iterator[None]:
        inner = [(name, module) for name, module in network.named_modules() if name]
        handles = [module.register_forward_pre_hook(partial(self.before, name)) for name, module in inner]
        handles += [module.register_forward_hook(partial(self.after, name)) for name, module in inner]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _where_cut(network: nn.Module, x: Tensor) -> str:
    calls = _Calls()
    with torch.enable_grad(), calls.noted(network):
        network(x)
    if calls.without:
        return f"torch.no_grad or torch.inference_mode is on where it calls {calls.without[0]}"
    if calls.cutting:
        return f"they end in {calls.cutting[0]}"
    where = f"{type(network).__name__}.forward"
    return f"they end in {where}" + (f", after {calls.passing[-1]}" if calls.passing else "")


def _any_gradient(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(map(_any_gradient, parts))


def _images(shape: ImageShape, statistics: Statistics | None, device: torch.device) -> Tensor:
    """Images of random pixels [4, C, H, W] in the network's range, from black to white in the order of the batch."""
    generator = torch.Generator().manual_seed(0)
    level = torch.linspace(0.1, 0.9, _IMAGES).view(-1, 1, 1, 1)
    pixels = (level + 0.25 * torch.randn(_IMAGES, *shape, generator=generator)).clamp(0, 1)
    mean, std = statistics or ((0.5,), (0.25,))
    x = (pixels - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    return x.to(device, torch.get_default_dtype())
