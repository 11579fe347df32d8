"""Files that are never half-written, and a lock that dies with its process."""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar

from zskt_dist.errors import ConfigError, UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def write_atomic(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replaces `path` at once by `content`; see `write_atomic_with`."""
    data = content.encode() if isinstance(content, str) else content
    write_atomic_with(path, lambda temporary: temporary.write_bytes(data), durable=durable)


def write_atomic_with(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Replaces `path` at once: `write` to a temporary file in the same folder, fsync (where `durable`), rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path), _temporary(path) as temporary:
        write(temporary)
        if durable:
            with temporary.open("rb") as file:
                _sync(file.fileno())
        temporary.replace(path)
    if durable:
        _sync_folder(path.parent)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new file beside `path`, locked as long as it is written to, and then gone, if nobody has renamed it."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                _flock(file, fcntl.LOCK_EX)
                if not temporary.exists():
                    continue  # somebody took it for a leftover before it was locked
                yield temporary
                return
        finally:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of writers that were killed; those that are being written to are locked."""
    for path in folder.rglob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            with suppress(OSError), path.open("ab") as file:
                _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the file that the user knows in errors, as a full disk does not, and others name the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else it is no error of the system
            error.filename = str(path)
        raise


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """Writes valid JSON, in which numbers that are not finite are null: it has no name for them."""
    write_atomic(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", durable=durable)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no such file.

    What is damaged, or something else, counts as no file, with a warning.
    """
    return _read_json(path, dict)


def read_json_list(path: Path) -> list[Any] | None:
    """The list in a file, as `read_json` reads an object."""
    return _read_json(path, list)


def _read_json(path: Path, kind: type[T]) -> T | None:
    content = read_bytes(path)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, kind):
        return found
    _warn_of_damage(path)
    return None


@cache
def _warn_of_damage(path: Path) -> None:
    """Once for each file: it may be read many times."""
    log.warning("%s is damaged, and counts as missing", path)


def read_bytes(path: Path) -> bytes | None:
    """The content, or None where there is no such file, nor a folder that could hold it."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_json(path: Path, option: str = "--json") -> None:
    """Checks, before a long command, that the file of `--json`, or of another option, can be written; makes its folder.

    Raises:
        ConfigError: the file cannot be written, or is a URI.
    """
    if re.match(r"\w{2,}:/", str(path)):  # a path has lost the second stroke
        raise ConfigError("--json", str(path), "is a URI; expected a file of this machine")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            problem = "is a folder" if path.is_dir() else None
    except OSError as error:
        problem = f"cannot be written in {path.parent}: {error.strerror}"
    if problem:
        raise ConfigError(option, str(path), problem)


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
    """An open file that holds the lock until it is closed or this process ends; None if another process has it.

    Raises:
        UserError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise _no_locks(path, error) from None
    return file


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Waits for the lock of `try_lock` and holds it; it excludes other processes, and other threads too.

    Raises:
        UserError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise _no_locks(path, error) from None
        yield


def _no_locks(path: Path, error: OSError) -> UserError:
    problem = f"{path} cannot be locked ({error.strerror}), so two commands could work on one run"
    return UserError(f"{problem}; use a runs_dir on a file system with flock: a local disk, or NFS 4")


def _flock(file: IO[bytes], how: int) -> None:
    """Locks where the file system can; without locks leftovers stay, which is better than to write nothing."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if how & fcntl.LOCK_NB:
            raise
        log.debug("%s: no locks here: %s", file.name, error)


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


def _sync(descriptor: int) -> None:
    """fsync; some network file systems cannot, and say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
