"""Makes a network from a callable and keyword arguments; errors name the wrong arguments."""

import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zskt_dist.errors import did_you_mean

Options = Mapping[str, Any]
"""Keyword arguments of a network, from its configuration."""
SCRIPTED = "is a TorchScript module, of which neither layers nor gradients can be watched"
"""What messages say of a `torch.jit.ScriptModule`: it takes no hooks."""


class ImageShape(NamedTuple):
    """[C, H, W] of one image."""

    channels: int
    height: int
    width: int


class NetworkError(ValueError):
    """The network cannot be made or used; the message says what would work."""


class OptionsError(NetworkError):
    """The name of the network is right, but its options are wrong."""


def construct(make: Callable[..., Any], given: Options, options: Options) -> Any:
    """`make(**given, **options)`.

    Args:
        given: Arguments that follow from the name and the images.
        options: Further arguments of the user.

    Raises:
        OptionsError: an option is unknown or given already, or a required one is missing.
    """
    twice = [name for name in options if name in given]
    if twice:
        raise OptionsError(f"{twice[0]} is {given[twice[0]]!r} already, by the network's name or its images; leave it")
    try:
        if signature := signature_of(make):
            signature.bind(**given, **options)
        return make(**given, **options)
    except TypeError as error:
        wrong = re.search(r"(?:unexpected|multiple values for) keyword argument '(\w+)'", str(error))
        if (wrong and wrong[1] in options) or "missing a required" in str(error):
            raise OptionsError(f"{error}{_what_it_takes(make, given, wrong[1] if wrong else '')}") from None
        raise


def describe_error(error: Exception) -> str:
    """An exception of foreign code on one line, with the place where it was raised."""
    text = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def cannot_take(images: str, error: Exception) -> str:
    """What messages say of a network that fails on images, described in words; libraries do not name the images."""
    sized = re.search(r"size|shape|channels|match|multipl", str(error))
    doubt = "; are the images of the size and channels that the network was made for?" if sized else ""
    return f"cannot take images {images}: {describe_error(error)}{doubt}"


def signature_of(make: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of a callable; None where it has none that can be read."""
    try:
        return inspect.signature(make)
    except (TypeError, ValueError):
        return None


def _what_it_takes(make: Callable[..., Any], given: Options, wrong: str) -> str:
    """The options that a callable takes, for messages; empty where they are not known."""
    signature = signature_of(make)
    parameters = list(signature.parameters.values()) if signature else []
    if not parameters or any(each.kind == each.VAR_KEYWORD for each in parameters):
        return ""
    names = [each.name for each in parameters if each.name not in given]
    return (f"; it takes {', '.join(names)}" if names else "; it takes no options") + did_you_mean(wrong, names)
