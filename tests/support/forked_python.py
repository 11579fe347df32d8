"""Stands in for `python` where torchrun starts its ranks; each is forked off the fork server.

python -m tests.support.forked_python -u -m MODULE ARGUMENT …
"""

import sys
from pathlib import Path

from tests.support.forks import FORK_SERVER, fork_server, run_instead


def forked_python(folder: Path) -> dict[str, str]:
    """Environment for torchrun. Writes the stand-in into `folder`."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m {__name__} "$@"\n')
    script.chmod(0o755)
    return {"PYTHON_EXEC": str(script), FORK_SERVER: fork_server().name}


if __name__ == "__main__":
    module = sys.argv.index("-m") + 1
    sys.exit(run_instead(sys.argv[module], sys.argv[module + 1 :], sys.stdout.fileno()))
