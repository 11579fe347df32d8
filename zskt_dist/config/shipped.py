"""The configurations that come with the package: `--config digits` works in an empty folder.

A checkout has them in `configs/` beside the package, and a wheel in it; `configs/sweeps` is `tune/` there.
"""

import os.path
from pathlib import Path

from zskt_dist.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).parents[1]


def shipped() -> dict[str, Path]:
    """Every shipped file by its name, in order: `digits`, `two_cores/graph`, `sweeps/beta`."""
    folder = _PACKAGE / "configs"
    if not folder.is_dir():
        folder = _PACKAGE.parent / "configs"
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")])
    return {file.relative_to(folder).as_posix().removesuffix(".yaml"): file for file in files}


def locate(path: Path) -> Path:
    """`path` where there is such a file, else the shipped configuration of that name, with or without `.yaml`.

    Raises:
        UserError: there is neither.
    """
    if path.is_file():
        return path
    known = shipped()
    name = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if name in known:
        return known[name]
    if path.exists():
        return path  # a folder or a pipe, for the reader to judge
    siblings = [file.name for file in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    close = did_you_mean(path.name, siblings)
    if not close and not path.is_absolute():
        close = f", here or among the shipped ones{did_you_mean(name, known) or ';'} `zskt configs` lists those"
    raise UserError(f"--config {path}: no such file{close}")


def beside(file: Path, name: str) -> Path:
    """The `config` that a sweep or a graph names: a file relative to its own folder, or a shipped configuration."""
    near = Path(os.path.normpath(file.parent / name))  # by name alone: the folder may be a link
    return near if near.is_file() else shipped().get(name, near)
