"""The cluster guides: every training command parses, and every link to a file leads somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, documented_commands, pinned, training_config
from tests.support.commands import REPOSITORY
from zskt_dist import __version__

PAGES = [CLUSTER / "README.md", *sorted((REPOSITORY / "docs" / "clusters").glob("*.md"))]
TRAININGS = [
    pytest.param(words[words.index("python") :], id=f"{page.stem}-{number}")
    for page in PAGES
    for number, words in enumerate(documented_commands(page))
    if any(word.startswith("zskt_dist.") for word in words)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("words", TRAININGS)
def test_documented_commands_parse(words: list[str]) -> None:
    training_config(words)


def test_documented_commands_are_found() -> None:
    assert len(TRAININGS) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_commands_name_exist(page: Path) -> None:
    folder = REPOSITORY / "cluster" / "kubernetes" if page.stem == "kubernetes" else REPOSITORY
    for words in documented_commands(page):
        for word in words:
            if re.fullmatch(r"[\w/-]+\.(yaml|sbatch)", word) and not word.startswith("/app/"):
                assert (folder / word).exists(), shlex.join(words)


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "clusters" / "README.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in index for page in PAGES[1:] if page.name != "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_images_are_of_this_version(page: Path) -> None:
    tags = re.findall(r"zskt-dist:(\S+)", page.read_text(encoding="utf-8"))
    assert set(tags) <= {f"{__version__}-ray{pinned('ray')}"}


@pytest.mark.parametrize("path", [path for path in CLUSTER.rglob("*") if path.is_file()], ids=lambda path: path.name)
def test_ray_dashboards_are_never_bound_to_all_interfaces(path: Path) -> None:
    """In Kubernetes the operator binds it to the pod, behind the policies; nothing here does so by itself."""
    assert not re.search(r"dashboard[-_]host\W+(0\.0\.0\.0|::)", path.read_text(encoding="utf-8"))
