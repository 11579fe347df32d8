"""Where run directories lie: a folder, or a URI that pyarrow knows, with a working copy on this machine.

A location is a text, `runs/digits/a` or `s3://bucket/runs/digits/a?region=eu-west-1`; the query of a
URI belongs to the store and stays at the end when names are joined.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from zskt_dist.addresses import masked
from zskt_dist.errors import ConfigError

OBJECT_STORES = ("s3", "gcs", "abfs")
"""pyarrow's names of filesystems that replace an object at once and know no folders."""

_OPTIONS = {
    "s3": "allow_delayed_open=true",  # one request for a small file, not three
    "gs": "retry_limit_seconds=30",  # pyarrow's default is a quarter of an hour
}
_ADVICE = {
    "s3": "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws or the machine's role; a server "
    "other than Amazon's is named by ?endpoint_override=HOST:PORT&scheme=http&region=us-east-1",
    "gs": "credentials come from GOOGLE_APPLICATION_CREDENTIALS or the machine's service account",
}
_SHORT_MESSAGE = 300


def is_uri(location: str) -> bool:
    return "://" in location


def absolute(location: str | Path) -> str:
    """A folder's absolute path; a URI as it is."""
    text = str(location)
    return text if is_uri(text) else str(Path(text).absolute())


def join(location: str, *names: str) -> str:
    """`location/name/…`."""
    if not is_uri(location):
        return str(Path(location, *names))
    path, mark, query = location.partition("?")
    return "/".join([path.rstrip("/"), *names]) + mark + query


def split(location: str) -> tuple[str, str]:
    """The location of the folder, and the last name."""
    if not is_uri(location):
        return str(Path(location).parent), Path(location).name
    path, mark, query = location.partition("?")
    folder, _, name = path.rstrip("/").rpartition("/")
    return folder + mark + query, name


def local_folder(location: str, key: str = "--out") -> Path:
    """The folder as a path; raises ConfigError for a file, and for a URI, which would become a folder named `s3:`."""
    if is_uri(location):
        raise ConfigError(key, location, "expected a folder of this machine")
    folder = Path(location)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(key, location, "is a file; expected a folder")
    return folder


def lies_in(root: Path, link: Path) -> bool:
    """True if what a link leads to lies in the folder; a link that leads to itself lies nowhere."""
    try:
        return link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False


def working_copy(location: str) -> Path:
    """Where a URI's files lie on this machine: below `$ZSKT_CACHE`, else `~/.cache/zskt_dist`.

    Raises:
        ConfigError: the URI has `.` or `..` in it, or holds a password or key, which would be saved with the run.
    """
    place, _, query = location.partition("?")
    scheme, _, rest = place.partition("://")
    host, *names = rest.split("/")
    user, at, _ = host.partition("@")
    if (at and ":" in user) or masked(f"?{query}") != f"?{query}":
        raise ConfigError("runs_dir", masked(location), f"would save its password with every run; {_advice(location)}")
    if {".", ".."} & set(names):
        raise ConfigError("runs_dir", location, "has . or .. in it; write the folder out")
    digest = hashlib.sha256(f"{scheme}://{host}?{query}".encode()).hexdigest()[:8]
    store = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{scheme}-{host}-{digest}")
    cache = Path(os.environ.get("ZSKT_CACHE") or Path.home() / ".cache" / "zskt_dist")
    return cache.absolute().joinpath("runs", store, *filter(None, names))


def connect(location: str, key: str = "runs_dir") -> tuple[Any, str]:
    """The pyarrow filesystem of a URI, and the path in it.

    Args:
        key: Argument or key that gives the URI, for messages.

    Raises:
        ConfigError: an unknown scheme, no such bucket, no access.
    """
    from pyarrow import fs  # late: a plain folder does without

    working_copy(location)  # refuses what must not be written down
    option, uri = _OPTIONS.get(location.partition("://")[0]), location
    if option and option.partition("=")[0] + "=" not in location:
        uri += ("&" if "?" in location else "?") + option
    with _reaching(location, key):
        filesystem, path = fs.FileSystem.from_uri(uri)
        bucket = path.partition("/")[0]
        # Listing answers "nothing there" for a bucket that does not exist.
        missing = filesystem.type_name == "s3" and filesystem.get_file_info(bucket).type == fs.FileType.NotFound
    if missing:
        raise ConfigError(key, location, f"there is no bucket {bucket!r}; make it first, or name another")
    return filesystem, path.rstrip("/")


def check(location: str, key: str = "runs_dir") -> None:
    """Connects to a URI; does nothing for a plain folder. Raises as `connect`."""
    if is_uri(location):
        connect(location, key)


def check_writable(location: str, key: str = "runs_dir") -> None:
    """Writes a small file to a URI and removes it again, with the folders made for it; raises as `connect`."""
    from pyarrow import fs

    filesystem, path = connect(location, key)
    name = f"{path}/.zskt-doctor-{secrets.token_hex(4)}"
    with _reaching(location, key):
        folders = [path, *map(str, list(PurePosixPath(path).parents)[:-1])]  # the deepest first, without the root
        missing = [info.path for info in filesystem.get_file_info(folders) if info.type == fs.FileType.NotFound]
        filesystem.create_dir(path, recursive=True)
        with filesystem.open_output_stream(name) as file:
            file.write(b"written")
        filesystem.delete_file(name)
        for folder in missing:
            if not filesystem.get_file_info(fs.FileSelector(folder)):  # else: a run has begun there meanwhile
                filesystem.delete_dir(folder)


def is_file(location: str, key: str) -> bool:
    """True for a file, here or in its store; raises as `connect`."""
    if not is_uri(location):
        return Path(location).is_file()
    filesystem, path = connect(location, key)
    with _reaching(location, key):
        return bool(filesystem.get_file_info(path).is_file)


def finished_below(location: str, key: str = "FOLDER") -> list[str]:
    """URIs of the folders in and below a URI that hold a `result.json`; raises as `connect`."""
    from pyarrow import fs

    filesystem, base = connect(location, key)
    with _reaching(location, key):
        found = filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    names = [info.path[len(base) + 1 :].split("/") for info in found]
    return sorted(join(location, *folders) for *folders, name in names if name == "result.json")


def remove_folder(location: str) -> None:
    """Removes a folder and all in it, where that is possible."""
    if not is_uri(location):
        shutil.rmtree(location, ignore_errors=True)
        return
    with suppress(OSError, ConfigError):
        filesystem, path = connect(location)
        filesystem.delete_dir(path)


def short(error: Exception) -> str:
    """The first line of a message; pyarrow's have several long ones."""
    return " ".join(str(error).split())[:_SHORT_MESSAGE] or type(error).__name__


@contextmanager
def _reaching(location: str, key: str) -> Iterator[None]:
    """Turns pyarrow's errors into ConfigError."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(key, location, f"{short(error)}; {_advice(location)}") from None


def _advice(location: str) -> str:
    scheme = location.partition("://")[0]
    return _ADVICE.get(scheme, "a folder, s3://bucket/folder, gs://bucket/folder or file:///folder would work")
