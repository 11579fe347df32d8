"""The report's folder: built beside its place and put there at the end, so that nothing else is lost."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from zskt_dist.errors import UserError
from zskt_dist.files import read_json, write_json
from zskt_dist.runs.directory import RunDirectory

MANIFEST = "report.json"
"""Lists the files of a report: those alone a later one replaces, and MLflow gets."""
PAGE = "report.md"
"""Every report has it, so a list without it is something else of that name."""


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files become those of `folder` where the block ends well.

    Raises:
        UserError: `folder` is a run directory, or holds files of the same names that no report has written.
    """
    refuse_runs(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_runs(folder: Path) -> None:
    """Raises UserError where `folder` is a run directory, whose files are not ours to replace."""
    run = RunDirectory(folder)
    if any(path.exists() for path in (run.begun, run.result, run.config, run.checkpoints)):
        raise UserError(f"--out {folder}: is a run directory; choose a folder of its own")


def _swap(temporary: Path, folder: Path) -> None:
    new = {path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file()}
    old = files_of(folder)
    kept = new | {MANIFEST} if old is None else new - old
    if foreign := sorted(name for name in kept if (folder / name).exists()):
        raise UserError(f"--out {folder}: {foreign[0]} is there already, and no report has written it; choose another")
    for name in sorted(new):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).replace(folder / name)
    for name in (old or set()) - new:
        (folder / name).unlink(missing_ok=True)
    write_json(folder / MANIFEST, {"files": sorted(new)})


def files_of(folder: Path) -> set[str] | None:
    """Files of the report in a folder, all inside it; None where there is no list of them."""
    known = read_json(folder / MANIFEST)
    if known is None or not isinstance(known.get("files"), list) or PAGE not in known["files"]:
        return None
    names = [PurePosixPath(name) for name in known["files"] if isinstance(name, str)]
    return {str(name) for name in names if not name.is_absolute() and ".." not in name.parts}
