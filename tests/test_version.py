"""One version everywhere."""

import re
import tomllib
from pathlib import Path

import yaml

from zskt_dist.version import __version__

ROOT = Path(__file__).parents[1]


def test_files_that_name_the_version_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text().endswith(f'__version__ = "{__version__}"\n')
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == __version__
