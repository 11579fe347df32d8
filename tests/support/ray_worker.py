"""Starts Ray's workers as Ray's own `setup_worker.py` does, but forked off a process that has torch loaded.

A training takes half a dozen of them, and each would import it for seconds. (Ray cannot be loaded beforehand: it takes
settings from the environment as it is imported.) A worker with an environment of its own, as those of a job with a
working directory, is left to Ray.
"""

import argparse
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.support.forks import ask

FORK_SERVER = "ZSKT_TESTS_FORK_SERVER"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    known, (program, *arguments) = parser.parse_known_args()
    context = json.loads(known.serialized_runtime_env_context)
    variables = context.get("env_vars") or {}
    if context.get("command_prefix") or "PYTHONPATH" in variables:
        spec = find_spec("ray")
        assert spec is not None
        assert spec.origin is not None
        script = Path(spec.origin).parent / "_private/workers/setup_worker.py"
        os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])
    output, environment = sys.stderr.fileno(), os.environ | variables
    answers = ask(os.environ[FORK_SERVER], output, program, arguments, Path.cwd(), environment)
    with answers.makefile() as lines:
        _begun, code = lines
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
