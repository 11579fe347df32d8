"""The site: its links and its reference; and the page whose code is run."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.support.commands import REPOSITORY


def test_the_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, as a reader would."""
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["result"].iterations == 10
    assert names["scores"].images == 64
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["student.safetensors"]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", REPOSITORY / "docs" / "site_hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[speed](docs/speed.md#a)", "[speed](speed.md#a)"),
        ("index.md", "[a tour](CONTRIBUTING.md)", "[a tour](contributing.md)"),
        ("index.md", "[code](zskt_dist/train.py)", "code"),
        ("index.md", "[no page](docs/none.md)", "[no page](docs/none.md)"),
        ("speed.md", "[`authors.py`](../benchmarks/authors.py)", "`authors.py`"),
        ("clusters/faults.md", "[home](../../README.md), [x](../speed.md)", "[home](../index.md), [x](../speed.md)"),
        ("speed.md", "[paper](https://arxiv.org/abs/1905.09768), [here](#below)", None),
        ("speed.md", "`rates[0](x)` and f(x)", None),
    ],
)
def test_links_of_the_site(hooks: ModuleType, page: str, link: str, expected: str | None) -> None:
    pages = {"index.md", "contributing.md", "speed.md", "clusters/faults.md"}
    files = SimpleNamespace(get_file_from_path=lambda path: path if path in pages else None)
    where = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    answer = hooks.on_page_markdown(link, where, SimpleNamespace(repo_url=None), files)
    assert answer == (link if expected is None else expected)


def test_links_into_the_repository(hooks: ModuleType) -> None:
    files = SimpleNamespace(get_file_from_path=lambda path: None)
    where, config = (
        SimpleNamespace(file=SimpleNamespace(src_uri="speed.md")),
        SimpleNamespace(repo_url="https://x.org/r/"),
    )
    answer = hooks.on_page_markdown("[a](../benchmarks/authors.py)", where, config, files)
    assert answer == "[a](https://x.org/r/blob/main/benchmarks/authors.py)"


def test_the_reference_has_every_public_module(hooks: ModuleType) -> None:
    shown = {name for _, *names in hooks.REFERENCE.values() for name in names}
    for room in ("algorithms", "models", "engine", "speed"):
        modules = (REPOSITORY / "zskt_dist" / room).glob("[!_]*.py")
        assert {f"zskt_dist.{room}.{path.stem}" for path in modules} <= shown
    import zskt_dist

    assert {f"zskt_dist.api.{name}" for name in zskt_dist.__all__} <= shown
    assert "zskt_dist.export.load.load_network" in shown  # model cards tell to call it


def test_the_navigation_has_every_page(hooks: ModuleType) -> None:
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    docs = REPOSITORY / "docs"
    made = {*hooks.COPIES, *(f"reference/{name}.md" for name in hooks.REFERENCE)}
    shown = list(_pages(nav))
    assert sorted(shown) == sorted(made | {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")})
    assert shown[:2] == ["index.md", "guides.md"]


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from _pages(each)


def test_pages_work_from_disk() -> None:
    """Links name files and not folders, and nothing is fetched from elsewhere; search needs its worker's stand-in."""
    pytest.importorskip("mkdocs")
    site = REPOSITORY / "build/site"
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]  # a server's page, with absolute links
    if not pages:
        pytest.skip("`make docs` has not made the site")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        used = [*re.findall(r'<(?:a|link)\b[^>]*\bhref="([^"#?]+)', text), *re.findall(r'\bsrc="([^"#?]+)', text)]
        for target in used:
            if not target.startswith(("http://", "https://", "mailto:", "data:")):
                assert (page.parent / target).is_file(), f"{page.relative_to(site)}: {target}"
        loaded = re.findall(r'<(?:script|img)\b[^>]*\bsrc="(https?:[^"]+)|<link\b[^>]*\bhref="(https?:[^"]+)', text)
        assert not loaded, f"{page.relative_to(site)} loads {loaded}"
    assert (site / "search/search_index.js").is_file()
    assert "iframe-worker.js" in (site / "index.html").read_text(encoding="utf-8")
