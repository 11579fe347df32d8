"""`files.sha256` beside the files of a run that later commands rely on, in the format of `sha256sum --check`.

A hash is written before its file, so that a file that differs from its recorded hash has been changed by somebody else. A
run that is killed between the two goes on from an earlier checkpoint and writes both again.
"""

import hashlib
import re
from pathlib import Path

from zskt_dist.errors import DamagedFileError
from zskt_dist.files import read_bytes, write_atomic

NAME = "files.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_recorded(path: Path, content: bytes) -> str:
    """Writes a file and its SHA-256, which it returns, hex; one process at a time writes to a folder."""
    sha256 = hashlib.sha256(content).hexdigest()
    sums = _read(path.parent) | {path.name: sha256}
    write_atomic(path.parent / NAME, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    write_atomic(path, content)
    return sha256


def problem_of(path: Path, content: bytes | None) -> str | None:
    """What is wrong with a file of that content, None being one that is missing; None where nothing is.

    Raises:
        DamagedFileError: the hashes themselves cannot be read.
    """
    if content is None:
        return "is missing"
    if _read(path.parent).get(path.name) in (None, hashlib.sha256(content).hexdigest()):
        return None
    return f"is damaged: its SHA-256 is not the one in {NAME} beside it"


def read_recorded(path: Path, remedy: str) -> bytes:
    """The content of a file; raises DamagedFileError, with a remedy, where it is missing or not the one that was written."""
    content = read_bytes(path)
    problem = problem_of(path, content)
    if content is None or problem:
        raise DamagedFileError(f"{path} {problem}; {remedy}")
    return content


def files_of(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match, in the order of their names, and those that should be there and are missing."""
    recorded = {folder / name for name in _read(folder) if Path(name).match(pattern)}
    return sorted({*folder.glob(pattern), *recorded})


def _read(folder: Path) -> dict[str, str]:
    """The hashes of a folder's files by name."""
    content = read_bytes(folder / NAME) or b""
    lines = [_LINE.fullmatch(line) for line in content.decode(errors="replace").splitlines()]
    found = {match[2]: match[1] for match in lines if match}
    ours = any((place / "config.yaml").exists() for place in (folder, folder.parent))  # else a format of others
    if len(found) < len(lines) and ours:
        raise DamagedFileError(f"{folder / NAME} is damaged; restore it, or delete it: then its files are not checked")
    return found
