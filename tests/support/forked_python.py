"""`python …` for programs that start Python by themselves: the command is forked off a process with torch in it."""

import os
import sys
from pathlib import Path

from tests.support.forks import ask, fork_server

FORK_SERVER = "ZSKT_TESTS_FORK_SERVER"


def forked_python(folder: Path) -> dict[str, str]:
    """The environment with which torchrun starts its ranks so; a script is written into that folder."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.support.forked_python "$@"\n')
    script.chmod(0o755)
    return {"PYTHON_EXEC": str(script), FORK_SERVER: fork_server().name}


if __name__ == "__main__":
    words = sys.argv[1:]
    module = words.index("-m") + 1
    environment = dict(os.environ)
    connection = ask(
        os.environ[FORK_SERVER], sys.stdout.fileno(), words[module], words[module + 1 :], Path.cwd(), environment
    )
    with connection.makefile() as lines:
        _begun, code = lines
    sys.exit(int(code))
