"""The quick tour: every file of the page is written and every command run, in order."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY, finish, python

_BLOCK = re.compile(r'```(\w+)(?: title="([\w.]+)")?\n(.*?)```', re.DOTALL)

_SHORTER = {
    "range(400)": "range(100)",
    "iterations: 600": "iterations: 250\ninversion: {warm_up: 20, rounds: 20}\nevaluation: {every: 100}",
    "evaluation:\n  every: 150\n": "",
}
"""Steps of the page, and of this test."""


@pytest.mark.slow
def test_the_tour_can_be_followed(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    output = ""
    page = (REPOSITORY / "docs" / "tour.md").read_text(encoding="utf-8")
    for steps, fewer in _SHORTER.items():
        assert page.count(steps) == 1
        page = page.replace(steps, fewer)
    for language, title, text in _BLOCK.findall(page):
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
            continue
        assert language == "sh", f"neither a file nor commands:\n{text}"
        for line in text.splitlines():
            program, *words = shlex.split(line)
            assert program == "python", f"the tour's commands are Python's: {line}"
            code, printed = finish(python(*words, folder=tmp_path))
            assert code == 0, f"{line}\n{printed}"
            output += printed
    (share,) = re.findall(r"([\d.]+)% of 397 digits", output)
    assert float(share) > 60, "the student in ONNX, on digits that nobody has trained on; chance is 10 %"
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert float(share) / 100 == pytest.approx(measured["evaluation"]["accuracy"], abs=0.1)
    assert (tmp_path / "runs/tour/small/export/README.md").exists()
