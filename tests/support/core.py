"""Commands where the core alone is installed: an interpreter without site-packages, and links to the core's needs."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.commands import REPOSITORY


def link_core(folder: Path) -> Path:
    """The dependencies of `pyproject.toml` without extras, and theirs, as links in a new folder."""
    folder.mkdir()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if (name := f"{requirement.name}[{','.join(sorted(requirement.extras))}]") in seen:
            continue
        seen.add(name)
        installed = distribution(requirement.name)
        _link(installed, folder)
        waiting += _needs(installed, requirement.extras)
    return folder


def _needs(installed: Distribution, extras: set[str]) -> list[Requirement]:
    def is_needed(need: Requirement) -> bool:
        return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))

    return list(filter(is_needed, map(Requirement, installed.requires or ())))


def _link(installed: Distribution, folder: Path) -> None:
    for top in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(Path(str(installed.locate_file(top))))


def zskt(*arguments: str, folder: Path, package: Path, core: Path) -> subprocess.CompletedProcess[str]:
    """`zskt …` in `folder`, with the package from the folder `package` and the links of `link_core`."""
    return python("-m", "zskt_dist", *arguments, folder=folder, package=package, core=core)


def python(*arguments: str, folder: Path, package: Path, core: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{core}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
