"""A run's place in a store (`s3://`, `gs://`, `file://`, …) and its working copy on this machine.

All other code reads and writes the working copy. `pull` brings it up to date before a command reads
it; `push` uploads what a command has written: after each checkpoint, from a thread, and at the end.
One machine at a time works on a run. `.mirror.json` keeps the size and time of each file, here and
in the store, after the last transfer. A comparison with it shows what has changed since:

- changed here: the next push uploads it, also if the store was away for a day;
- changed there: the next pull downloads it, also over a change here;
- gone from one side: it is deleted on the other. Otherwise a run could go on from a checkpoint that
  `--fresh` on another machine has given up.

At every moment the store holds a run that can be read: files are replaced whole; a checkpoint follows
what it needs, and its name proves its content; `result.json` comes last, deletions after it. Messages
(`stop`, `failure.json`) are no part of this: they are sent, received and deleted one by one.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from zskt_dist.errors import ConfigError, UserError
from zskt_dist.files import lock, read_json, write_atomic, write_json
from zskt_dist.runs.locations import OBJECT_STORES, check, connect, is_uri, lies_in, short, split, working_copy

log = logging.getLogger(__name__)

Stamp = list[int | None]
"""Size in bytes and time of the last change in ns, which tell two versions of a file apart.

S3 dates to the second, so versions of one size that two machines write within a second look alike.
"""

_RESULT, _CHECKPOINTS, _PSEUDO_DATA, _RECORD = "result.json", "checkpoints/", "pseudo_data/", ".mirror.json"
_NOT_CARRIED = ("stop", "failure.json", "progress.json")
_POLL_SECONDS = 1.5


class Mirror:
    """Copies a run directory to and from its store; does nothing for a plain folder.

    All methods but `attempt`, `push_soon` and `following` raise UserError if the store cannot be reached.
    """

    def __init__(self, location: str, folder: Path) -> None:
        self.location, self.folder, self.is_stored = location, folder, is_uri(location)
        self._due: threading.Event | None = None  # made late: a RunDirectory goes to other processes
        self._warned = False

    def pull(self, *, checkpoints: bool = True, pseudo_data: bool = False) -> None:
        """Downloads what is new in the store and deletes what is gone from it.

        Args:
            checkpoints: Download these too, which are large and needed only to train on.
            pseudo_data: Download this too, which is large and needed only to make more of it.
        """
        if not self.is_stored:
            return
        left = tuple(each for each, wanted in ((_CHECKPOINTS, checkpoints), (_PSEUDO_DATA, pseudo_data)) if not wanted)
        with self._transfer() as known:
            there, here = _stamps(*self._store), _stamps(*self._copy)
            if not there:
                known.clear()  # the store has lost the run; the next push uploads it again
            for name in known.keys() - there.keys():
                if here.get(name) == known.pop(name)[0]:
                    (self.folder / name).unlink(missing_ok=True)
            for name in sorted(there, key=_order):
                if not name.startswith(left):
                    self._update(known, name, there[name])
                elif name not in here:
                    known.pop(name, None)  # not here, but not deleted by the run either: it stays in the store

    def push(self) -> None:
        """Uploads what is new here, then deletes in the store what was deleted here."""
        if not self.is_stored:
            return
        finished = (self.folder / _RESULT).exists()  # before the listing, which then has all that goes with it
        here = _stamps(*self._copy)
        if not finished:
            here.pop(_RESULT, None)
        with self._transfer() as known:
            for name in sorted(here, key=_order):
                if name in known and known[name][0] == here[name]:
                    continue
                try:
                    self.send(name)
                except UserError:
                    if (self.folder / name).exists():
                        raise
                else:  # not a checkpoint that was dropped meanwhile
                    known[name] = [here[name], _stamp(*self._store, name)]
            for name in known.keys() - here.keys():
                if not (self.folder / name).exists():
                    self.forget(name)
                    del known[name]

    def fetch(self, name: str) -> Path:
        """Downloads one file and returns its path."""
        with self._transfer() as known:
            self._update(known, name, _stamp(*self._store, name))
        return self.folder / name

    def send(self, name: str) -> None:
        """Uploads one file."""
        if not self.is_stored:
            return
        from pyarrow import fs

        with self._reaching():
            (here, folder), (there, base) = self._copy, self._store
            path = target = f"{base}/{name}"
            if there.type_name not in OBJECT_STORES:
                parent, leaf = split(path)
                there.create_dir(parent, recursive=True)
                target = f"{parent}/.{leaf}.tmp"
            # One call: an exception between opening and closing a stream would leave half an object.
            fs.copy_files(f"{folder}/{name}", target, source_filesystem=here, destination_filesystem=there)
            if target != path:
                there.move(target, path)
        log.debug("uploaded %s to %s", name, self.location)

    def receive(self, name: str) -> bool:
        """Downloads one file; False if the store has none."""
        if self.is_stored:
            with self._reaching(), suppress(FileNotFoundError):
                filesystem, base = self._store
                with filesystem.open_input_stream(f"{base}/{name}", compression=None) as stream:
                    content = stream.read()
                write_atomic(self.folder / name, content)
                log.debug("fetched %s from %s", name, self.location)
                return True
        return False

    def forget(self, *names: str) -> None:
        """Deletes files in the store."""
        for name in names if self.is_stored else ():
            with self._reaching(), suppress(FileNotFoundError):
                filesystem, base = self._store
                filesystem.delete_file(f"{base}/{name}")

    def move(self, name: str) -> None:
        """Renames the directory in the store to its sibling `name`."""
        if not self.is_stored:
            return
        with self._reaching():
            filesystem, base = self._store
            aside, names = f"{split(base)[0]}/{name}", sorted(_stamps(filesystem, base), key=_order)
            if names and filesystem.type_name not in OBJECT_STORES:
                filesystem.move(base, aside)
                return
            for each in names:
                filesystem.copy_file(f"{base}/{each}", f"{aside}/{each}")
            self.forget(*reversed(names))  # the result first: half a directory must not look finished

    def attempt(self, action: Callable[[], object]) -> None:
        """Runs `action`; its errors become one warning per outage."""
        try:
            action()
            self._warned = False
        except UserError as error:
            if not self._warned:
                log.warning("%s", error)
            self._warned = True

    def push_soon(self) -> None:
        """Starts a push in the thread of `following`."""
        if self._due:
            self._due.set()

    @contextmanager
    def following(self, stop: Path | None = None) -> Iterator[None]:
        """Runs a thread that pushes after each `push_soon`; an outage is a warning, and the next push tries again.

        Args:
            stop: The thread creates this file when the store has one of that name. None: nobody sends one.
        """
        if not self.is_stored:
            yield
            return
        if stop:
            stop.unlink(missing_ok=True)  # received in an earlier run; if it still holds, it is received again
        due, ended = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._follow, args=(stop, due, ended), name="run-mirror", daemon=True)
        thread.start()
        self._due = due
        try:
            yield
        finally:
            self._due = None
            ended.set()
            due.set()
            thread.join()

    def _follow(self, stop: Path | None, due: threading.Event, ended: threading.Event) -> None:
        while not ended.is_set():
            if stop and not stop.exists():
                with suppress(UserError):  # the pushes warn of an outage
                    self.receive(stop.name)
            if due.wait(_POLL_SECONDS if stop else None):
                due.clear()
                if not ended.is_set():
                    self.attempt(self.push)

    @cached_property
    def _store(self) -> tuple[Any, str]:
        return connect(self.location)

    @cached_property
    def _copy(self) -> tuple[Any, str]:
        from pyarrow import fs  # late, as in `connect`

        return fs.LocalFileSystem(), str(self.folder)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import pyarrow

        try:
            yield
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(
                f"{self.location} cannot be reached ({short(error)}). Nothing is lost: the working copy is "
                f"{self.folder}, and the same command, on this machine, uploads what is missing"
            ) from None

    @contextmanager
    def _transfer(self) -> Iterator[dict[str, list[Stamp]]]:
        """Yields name -> [stamp here, stamp there] of the last transfer, and keeps the changes whatever happens."""
        with self._reaching(), lock(self.folder.with_name(f".{self.folder.name}.mirror.lock")):
            before = read_json(self.folder / _RECORD) or {}
            known = dict(before)
            try:
                yield known
            finally:
                if known != before:
                    write_json(self.folder / _RECORD, known)

    def _update(self, known: dict[str, list[Stamp]], name: str, there: Stamp) -> None:
        """Downloads one file, unless the last transfer brought that version."""
        has_it = name in known and known[name][1] == there and (self.folder / name).exists()
        if not has_it and self.receive(name):
            known[name] = [_stamp(*self._copy, name), there]


def local_file(location: str, key: str) -> Path:
    """The file itself, or the working copy, up to date, of a URI.

    Raises:
        UserError: the store cannot be reached, or has no such file.
    """
    if not is_uri(location):
        return Path(location)
    check(location, key)
    folder, name = split(location)
    path = Mirror(folder, working_copy(folder)).fetch(name)
    if not path.exists():
        raise ConfigError(key, location, "there is no such file")
    return path


def _stamps(filesystem: Any, folder: str) -> dict[str, Stamp]:
    """The files of a folder to copy; hidden ones (locks, temporary files, Ray's) are left out."""
    from pyarrow import fs

    found = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    files = {info.path[len(folder) + 1 :]: [info.size, info.mtime_ns] for info in found if info.is_file}
    if filesystem.type_name == "local":
        root = Path(folder).resolve()  # a link out of the run is not copied: what it leads to is not the run's
        files = {name: stamp for name, stamp in files.items() if lies_in(root, root / name)}
    return {name: stamp for name, stamp in files.items() if name not in _NOT_CARRIED and "/." not in f"/{name}"}


def _stamp(filesystem: Any, folder: str, name: str) -> Stamp:
    info = filesystem.get_file_info(f"{folder}/{name}")
    return [info.size, info.mtime_ns]


def _order(name: str) -> tuple[bool, bool, str]:
    """Sort key: a checkpoint comes after what it needs, and the result comes last."""
    return name == _RESULT, name.startswith(_CHECKPOINTS), name
