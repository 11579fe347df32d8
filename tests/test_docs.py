import subprocess
import sys

from tests.support.commands import REPOSITORY


def test_the_configuration_page_is_up_to_date() -> None:
    command = [sys.executable, "docs/make_configuration.py", "--check"]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
