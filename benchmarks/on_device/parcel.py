"""Run directories as a few files of bounded size, and back.

`state-0.part`, `state-1.part`, … joined are a tar archive: `cat state-*.part | tar x`.
"""

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.directory import RunDirectory

PART_BYTES, PARTS = 15 * 2**20, 3
_TAR_OVERHEAD = 2048  # header and padding of a file, at most
_RUN_FILES = ("config.yaml", "command.json", "result.json", "history.parquet", "student.safetensors")


def pack(work: Path, out: Path, *, part_bytes: int = PART_BYTES, parts: int = PARTS) -> list[str]:
    """Writes what another call needs of the runs in `work`, and copies the rounded teachers.

    Returns:
        Files that found no room.
    """
    for path in (work / "teachers").glob("*.safetensors"):
        shutil.copy2(path, out / path.name)
    room, left_out = part_bytes * parts - 10240, []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in _needed(work):
            size = path.stat().st_size + _TAR_OVERHEAD
            if size > room:
                left_out.append(str(path.relative_to(work)))
                continue
            room -= size
            archive.add(path, path.relative_to(work))
    content = buffer.getvalue()
    for old in out.glob("state-*.part"):
        old.unlink()
    for number, start in enumerate(range(0, len(content), part_bytes)):
        (out / f"state-{number}.part").write_bytes(content[start : start + part_bytes])
    return left_out


def unpack(folder: Path, work: Path) -> None:
    """What an earlier call has packed into `folder`; runs that are further in `work` go on from there."""
    for path in folder.glob("*.safetensors"):
        (work / "teachers").mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, work / "teachers" / path.name)
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("state-*.part")))
    if content:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
            archive.extractall(work)


def _needed(work: Path) -> Iterator[Path]:
    """Of runs under way the newest checkpoint and the snapshots; what is under way comes first."""
    folders = [path.parent for path in sorted((work / "runs").glob("*/*/command.json"))]
    for folder in sorted(folders, key=lambda folder: RunDirectory(folder).finished() is not None):
        directory = RunDirectory(folder)
        yield from (folder / name for name in _RUN_FILES if (folder / name).exists())
        teacher = directory.weights("teacher")
        if teacher.exists() and not (work / "teachers" / f"{folder.name}.safetensors").exists():
            yield teacher  # finished, and not rounded yet
        if directory.finished() is None:
            newest = CheckpointStore(directory.checkpoints).newest()
            yield from [newest] if newest else []
            yield from sorted(directory.snapshots.glob("*.safetensors"))
