"""What can be imported where neither Parquet nor pictures can be read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ALONE = [str(REPOSITORY / "tests" / "support" / "no_extras.py")]
WITHOUT_PILLOW = ["-c", "import sys; sys.modules['PIL'] = None; exec(sys.argv[1])"]


@pytest.mark.parametrize(
    ("python", "program"),
    [
        (ALONE, "import zskt_dist.data, zskt_dist.tasks.transfer, zskt_dist.api.training"),
        (WITHOUT_PILLOW, "import zskt_dist.training.worker"),
    ],
)
def test_modules_that_need_few_packages(python: list[str], program: str) -> None:
    """The former without any extra package, the latter without Pillow."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *python, program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
