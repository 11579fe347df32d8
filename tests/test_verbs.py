"""Every verb has a module, answers --help fast, and says what it does."""

import subprocess
import sys
import time

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
