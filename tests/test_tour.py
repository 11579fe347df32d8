"""The quick tour: every file of the page is written and every command run, in order."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY

_BLOCK = re.compile(r'```(\w+)(?: title="([\w.]+)")?\n(.*?)```', re.DOTALL)


@pytest.mark.slow
def test_the_tour_can_be_followed(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    output = ""
    for language, title, text in _BLOCK.findall((REPOSITORY / "docs" / "tour.md").read_text(encoding="utf-8")):
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
            continue
        assert language == "sh", f"neither a file nor commands:\n{text}"
        answer = subprocess.run(
            ["bash", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, f"{text}\n{answer.stdout}\n{answer.stderr}"
        output += answer.stdout
    (share,) = re.findall(r"([\d.]+)% of 397 digits", output)
    assert float(share) > 60, "the student in ONNX, on digits that nobody has trained on; chance is 10 %"
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert float(share) / 100 == pytest.approx(measured["evaluation"]["accuracy"], abs=0.1)
    assert (tmp_path / "runs/tour/small/export/README.md").exists()
