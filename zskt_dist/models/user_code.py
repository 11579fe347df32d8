"""Networks from the user's own code, by import path: `package.module:callable`."""

import importlib
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zskt_dist.errors import did_you_mean
from zskt_dist.models.construction import ImageShape, NetworkError, Options, construct, describe_error, signature_of


def from_import_path(path: str, image_shape: ImageShape, num_classes: int, options: Options) -> nn.Module:
    """The network that the callable returns.

    It is called with `options`, and with those of `num_classes`, `in_channels` and `image_shape` that its signature
    names; an option of that name wins.

    Raises:
        NetworkError: the module or callable is missing, or returns no network; OptionsError: it takes other options.
    """
    make = find_callable(path)
    about = {"num_classes": num_classes, "in_channels": image_shape.channels, "image_shape": tuple(image_shape)}
    signature = signature_of(make)
    named = signature.parameters if signature else {}
    given = {name: value for name, value in about.items() if name in named and name not in options}
    network = construct(make, given, options)
    if not isinstance(network, nn.Module):
        raise NetworkError(f"returned {_kind(network)}, and a torch.nn.Module is needed")
    return network


def find_callable(path: str) -> Any:
    """What an import path names; raises NetworkError where there is no such thing to call."""
    match = re.fullmatch(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)", path)
    if match is None:
        raise NetworkError("is no import path; write package.module:callable, for example my_networks:make_network")
    module_name, attributes = match.groups()
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # last: nothing installed is hidden by the folder
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        # It runs once: it must draw no numbers from the networks' seed and leave no constants on the meta device.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            close = did_you_mean(module_name, (file.stem for file in Path.cwd().glob("*.py")))
            raise NetworkError(
                f"there is no module {error.name!r} in this folder, on PYTHONPATH or installed{close}"
            ) from None
        raise NetworkError(f"{module_name} cannot be imported: {describe_error(error)}") from None
    except Exception as error:
        raise NetworkError(f"{module_name} cannot be imported: {describe_error(error)}") from None
    for name in attributes.split("."):
        if not hasattr(found, name):
            public = [each for each in dir(found) if not each.startswith("_") and callable(getattr(found, each))]
            raise NetworkError(f"{module_name} has no {name!r}{did_you_mean(name, public) or _what_it_has(found)}")
        found = getattr(found, name)
    if not callable(found):
        raise NetworkError(f"is {_kind(found)}, and something to call is needed that returns a torch.nn.Module")
    return found


def as_import_path(name: str) -> str | None:
    """`module:callable` for `module.callable`, where such a module is in this folder or installed; else None."""
    module, _, attribute = name.rpartition(".")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        return None
    top = module.partition(".")[0]
    here = Path.cwd() / top
    found = here.is_dir() or here.with_suffix(".py").is_file() or top in sys.modules or find_spec(top) is not None
    return f"{module}:{attribute}" if found else None


def _what_it_has(found: Any) -> str:
    """Up to eight of the classes and functions that a module defines itself, for messages."""
    inner = vars(found) if hasattr(found, "__dict__") else {}
    own = [
        name
        for name, value in inner.items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == found.__name__
    ]
    return f"; it has {', '.join(own[:8])}{', …' * (len(own) > 8)}" if own else ""


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"
