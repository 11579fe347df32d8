"""Every verb has a module, answers --help fast, and says what it does."""

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zskt_dist.__main__ import MODULES, VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_fast_and_imports_nothing_heavy(verb: str) -> None:
    module = MODULES.get(verb, f"zskt_dist.{verb}")
    heavy = ("torch", "ray", "mlflow", "pandas", "matplotlib", "pydantic")
    program = (
        f"import sys, importlib; module = importlib.import_module({module!r})\n"
        "try: module.main(['--help'])\n"
        f"except SystemExit as end: assert not end.code; assert not set({heavy!r}) & set(sys.modules), sys.modules\n"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert time.perf_counter() - started < 2  # 0.5 s on an idle machine


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("evaluate", "no finished run; evaluate takes a folder"),
        ("export", "no finished run; export takes a folder"),
        ("synthesize", "no finished run; synthesize takes a folder"),
        ("replay", "is no run directory"),
    ],
)
def test_a_file_in_place_of_its_run_is_one_line(
    verb: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "student.safetensors"
    weights.write_bytes(b"weights")
    assert importlib.import_module(f"zskt_dist.{verb}").main([str(weights)]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
