"""What a Ray job is to a command: another launcher, and a working directory that does not last.

`ray job submit --working-dir .` copies the folder to the cluster, and Ray deletes that copy. What a command reads is in
it; what it writes must go elsewhere.
"""

import json
import os
from pathlib import Path

from zskt_dist.errors import ConfigError

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for the command of a job, and for no other process."""
_COPIES = "working_dir_files"
"""Name of Ray's folder of copies."""


def in_job() -> bool:
    """True if this process was started by `ray job submit`."""
    return JOB in os.environ


def lasting_folder() -> Path | None:
    """The folder for relative paths that are written: `~/zskt`; None: the current one, which nobody deletes."""
    return Path.home() / "zskt" if _is_in_copy() else None


def lasting(location: str, key: str) -> str:
    """Where the user's relative path of something that is written, or was, lies; as it is outside such a copy.

    Args:
        location: A path, or a URI, which stays as it is.
        key: Key or option that names it, for messages.

    Raises:
        ConfigError: it would lie in a pod, and go with it.
    """
    folder = lasting_folder()
    if folder is None or "://" in location or Path(location).is_absolute():
        return location
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        problem = "is relative, and in a Ray job on Kubernetes it would be lost with the pod; name a mounted folder, "
        raise ConfigError(key, location, f"{problem}/shared/{location}, or a URI, s3://bucket/{location}")
    return os.path.normpath(folder / location)


def _is_in_copy() -> bool:
    """True if the current folder is Ray's copy, and not one that the job's command has changed to."""
    try:
        runtime = json.loads(os.environ.get(JOB, "{}")).get("runtime_env") or {}
    except (ValueError, AttributeError):
        runtime = {}
    if not runtime.get("working_dir"):
        return False
    here = Path.cwd()
    copy = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[0]  # Ray puts it first
    return _COPIES in here.parts or (bool(copy) and here.is_relative_to(Path(copy).absolute()))
