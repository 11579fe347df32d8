"""What importing the package does."""

import os
import subprocess
import sys

import pytest

from tests.support.commands import REPOSITORY


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_spin_shortly_unless_told_otherwise(given: dict[str, str], expected: str) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    code = "import zskt_dist, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == expected
