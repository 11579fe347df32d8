"""Files that are never half-written, and a lock that dies with its process."""

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from zskt_dist.errors import ConfigError


def write_atomic(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replaces `path` at once by `content`; see `write_atomic_with`."""
    data = content.encode() if isinstance(content, str) else content
    write_atomic_with(path, lambda temporary: temporary.write_bytes(data), durable=durable)


def write_atomic_with(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Replaces `path` at once: `write` to a temporary file in the same folder, fsync (where `durable`), rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _sync_folder(path.parent)


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    write_atomic(path, json.dumps(content, indent=2) + "\n", durable=durable)


def read_json(path: Path) -> Any | None:
    """The content, or None where there is no such file (nor a folder that could hold it) or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def read_bytes(path: Path) -> bytes | None:
    """The content, or None where there is no such file, nor a folder that could hold it."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_json(path: Path) -> None:
    """Checks, before a long command, that the file of `--json` can be written; makes its folder.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            problem = "is a folder" if path.is_dir() else None
    except OSError as error:
        problem = f"cannot be written in {path.parent}: {error.strerror}"
    if problem:
        raise ConfigError("--json", str(path), problem)


def sha256_of(path: Path) -> str:
    """SHA-256 of the content, hex; raises OSError where there is no such file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(path: Path) -> str:
    """SHA-256 of a file, or over the names and contents of a folder's, but for hidden ones; hex."""
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            digest.update(f"{file.relative_to(path)}: {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def try_lock(path: Path) -> IO[str] | None:
    """An open file that holds the lock until it is closed or this process ends; None if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Waits for the lock of `try_lock` and holds it; it excludes other processes, and other threads too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def describe_size(size: int) -> str:
    """A size in MiB, or in GiB from one GiB on."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; some network filesystems cannot and need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
