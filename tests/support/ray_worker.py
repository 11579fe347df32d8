"""Starts Ray's workers as Ray's own `setup_worker.py` does, but forked off a process that has torch loaded.

A training takes half a dozen of them, and each would import it for seconds. (Ray cannot be loaded beforehand: it takes
settings from the environment as it is imported.) A worker with packages or a Python of its own, as those of a job with
a working directory, is left to Ray.
"""

import argparse
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.support.forks import run_instead


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    known, (program, *arguments) = parser.parse_known_args()
    context = json.loads(known.serialized_runtime_env_context)
    variables = context.get("env_vars") or {}
    other_python = context.get("py_executable", sys.executable) != sys.executable
    if context.get("command_prefix") or context.get("override_worker_entrypoint") or "PYTHONPATH" in variables:
        other_python = True
    if other_python:
        spec = find_spec("ray")
        assert spec is not None
        assert spec.origin is not None
        script = Path(spec.origin).parent / "_private/workers/setup_worker.py"
        os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])
    return run_instead(program, arguments, sys.stderr.fileno(), variables)


if __name__ == "__main__":
    sys.exit(main())
