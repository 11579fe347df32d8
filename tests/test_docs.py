import re
import subprocess
import sys

import pytest

from tests.support.commands import REPOSITORY


@pytest.mark.parametrize("script", ["make_configuration.py", "make_result.py"])
def test_what_is_made_from_the_types_is_up_to_date(script: str) -> None:
    command = [sys.executable, f"docs/{script}", "--check"]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_links_between_pages_lead_somewhere() -> None:
    pages = [page for page in REPOSITORY.rglob("*.md") if not any(part[0] == "." for part in page.parts)]
    pages = [page for page in pages if page.relative_to(REPOSITORY).parts[0] in ("README.md", "docs", "benchmarks")]
    assert len(pages) > 20
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())]
    broken = [
        f"{page.relative_to(REPOSITORY)}: {link}"
        for page, link in links
        if "://" not in link and not link.startswith("mailto:") and not (page.parent / link).exists()
    ]
    assert broken == []
