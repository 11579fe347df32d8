"""Carrying a run directory between its working copy on this machine and its place in a store.

A transfer compares three states of each file: here, in the store, and as both were at the last
transfer (`.mirror.json`). So it is known which side has changed, and what is missing on one side
was deleted there or is new on the other. Where both have changed, the store wins.

At every moment the store can be read: files are replaced whole; a checkpoint follows what it needs
and proves itself by its name; `result.json` comes last; deletions come after it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from zskt_dist.errors import ConfigError, UserError
from zskt_dist.files import lock, read_json, write_atomic, write_json
from zskt_dist.runs.storage import OBJECT_STORES, check, connect, is_uri, short, split, working_copy

log = logging.getLogger(__name__)

Stamp = list[int | None]
"""Size in bytes and time of the last change in ns: what tells two versions of a file apart.

S3 dates to the second, so versions of one size that two machines write within a second look alike.
"""

_RESULT, _CHECKPOINTS, _RECORD = "result.json", "checkpoints/", ".mirror.json"
_PSEUDO_DATA = "pseudo_data/"
_OF_ONE_MOMENT = ("stop", "failure.json", "progress.json")
_POLL_SECONDS = 1.5


class Mirror:
    """Of a plain folder: there is nothing to carry."""

    def pull(self, *, checkpoints: bool = True, pseudo_data: bool = False) -> None:
        """Fetches what the store has and the working copy lacks or has differently.

        Args:
            checkpoints: Whether also those, which are large and needed for training on only.
            pseudo_data: Whether also that, which is large and needed for making more of it only.

        Raises:
            UserError: the store cannot be reached.
        """

    def push(self) -> None:
        """Uploads what is new or changed here, then deletes there what was deleted here; raises as `pull`."""

    def push_soon(self) -> None:
        """Asks for a push by the thread of `following`."""

    @contextmanager
    def following(self, stop: Path | None = None) -> Iterator[None]:
        """Meanwhile a thread pushes when asked to; failures become a warning, and the next push tries again.

        Args:
            stop: Created once there is a file `stop` in the store; None: nobody asks for a stop that way.
        """
        yield

    def send(self, name: str) -> None:
        """Uploads one file that `push` leaves out; raises as `pull`."""

    def receive(self, name: str) -> None:
        """Fetches such a file where there is one; raises as `pull`."""

    def forget(self, *names: str) -> None:
        """Deletes such files in the store; raises as `pull`."""

    def move(self, name: str) -> None:
        """Renames the directory in the store to its sibling `name`; raises as `pull`."""

    def attempt(self, action: Callable[[], None]) -> bool:
        """Whether it worked; where not, a warning, once in an outage."""
        action()
        return True


class StoreMirror(Mirror):
    """Of a folder that is the working copy of a URI."""

    def __init__(self, location: str, folder: Path) -> None:
        self.location, self.folder = location, folder
        self._due, self._warned = threading.Event(), False

    def pull(self, *, checkpoints: bool = True, pseudo_data: bool = False) -> None:
        left = tuple(each for each, wanted in ((_CHECKPOINTS, checkpoints), (_PSEUDO_DATA, pseudo_data)) if not wanted)
        with self._transfer() as known:
            there, here = self._there(), self._here()
            if not there:
                known.clear()  # the store has lost the run, and gets it back
            for name in known.keys() - there.keys():
                if here.get(name) == known.pop(name)[0]:
                    (self.folder / name).unlink(missing_ok=True)
            for name in sorted(there, key=_order):
                if name.startswith(left):
                    if name not in here:
                        known.pop(name, None)  # absent, which does not mean: deleted by us
                    continue
                if name in here and name in known and known[name][1] == there[name]:
                    continue
                with suppress(FileNotFoundError):  # deleted meanwhile by a run that goes on
                    self._download(name)
                    known[name] = [_stamp(self.folder / name), there[name]]

    def fetch(self, name: str) -> None:
        """Of `pull`, one file."""
        with self._transfer() as known:
            there = self._stamp_there(name)
            if there[0] is not None and (known.get(name, [None, None])[1] != there or name not in self._here()):
                self._download(name)
                known[name] = [_stamp(self.folder / name), there]

    def push(self) -> None:
        finished = (self.folder / _RESULT).exists()  # asked first: so all that belongs to it is in the listing
        here = self._here()
        if not finished:
            here.pop(_RESULT, None)
        record = self._known()
        if all(record.get(name, [None])[0] == stamp for name, stamp in here.items()) and record.keys() <= here.keys():
            return  # nothing new: no need to reach the store
        with self._transfer() as known:
            for name in sorted(here, key=_order):
                if name in known and known[name][0] == here[name]:
                    continue
                try:
                    self._upload(name)
                except FileNotFoundError:
                    if (self.folder / name).exists():
                        raise
                else:  # not a checkpoint that has been replaced meanwhile
                    known[name] = [here[name], self._stamp_there(name)]
            for name in known.keys() - here.keys():
                if not (self.folder / name).exists():
                    self._delete(name)
                    del known[name]

    def push_soon(self) -> None:
        self._due.set()

    @contextmanager
    def following(self, stop: Path | None = None) -> Iterator[None]:
        ended = threading.Event()
        loops: list[Callable[[], None]] = [partial(self._push_when_due, ended)]
        if stop is not None:
            self.attempt(partial(self._forget_old, stop))
            loops.append(partial(self._wait_for_stop, stop, ended))
        threads = [threading.Thread(target=loop, name="run-storage", daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            self._due.set()
            for thread in threads:
                thread.join()

    def send(self, name: str) -> None:
        with self._reaching():
            self._upload(name)

    def receive(self, name: str) -> None:
        with self._reaching(), suppress(FileNotFoundError):
            self._download(name)

    def forget(self, *names: str) -> None:
        with self._reaching():
            for name in names:
                self._delete(name)

    def move(self, name: str) -> None:
        with self._reaching():
            names = sorted(self._there(), key=_order)
            filesystem, base = self._store
            aside = f"{split(base)[0]}/{name}"
            for each in names:
                if filesystem.type_name not in OBJECT_STORES:
                    filesystem.create_dir(split(f"{aside}/{each}")[0], recursive=True)
                filesystem.copy_file(f"{base}/{each}", f"{aside}/{each}")
            for each in reversed(names):  # the result first: half a directory must not look finished
                self._delete(each)

    def attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except UserError as error:
            if not self._warned:
                log.warning("%s", error)
            self._warned = True
            return False
        self._warned = False
        return True

    @cached_property
    def _store(self) -> tuple[Any, str]:
        return connect(self.location)

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
        """Yields name -> [stamp here, stamp there] of the last transfer; what becomes of it is kept in any case."""
        with self._reaching(), lock(self.folder.with_name(f".{self.folder.name}.mirror.lock")):
            before = self._known()
            known = dict(before)
            try:
                yield known
            finally:
                if known != before:
                    write_json(self.folder / _RECORD, known)

    def _known(self) -> dict[str, list[Stamp]]:
        return read_json(self.folder / _RECORD) or {}

    def _here(self) -> dict[str, Stamp]:
        stamps = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if _is_carried(name):
                with suppress(FileNotFoundError):
                    if path.is_file():
                        stamps[name] = _stamp(path)
        return stamps

    def _there(self) -> dict[str, Stamp]:
        from pyarrow import fs

        filesystem, base = self._store
        found = filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        files = {info.path[len(base) + 1 :]: [info.size, info.mtime_ns] for info in found if info.is_file}
        return {name: stamp for name, stamp in files.items() if _is_carried(name)}

    def _stamp_there(self, name: str) -> Stamp:
        filesystem, base = self._store
        info = filesystem.get_file_info(f"{base}/{name}")
        return [info.size, info.mtime_ns]

    def _upload(self, name: str) -> None:
        from pyarrow import fs

        filesystem, base = self._store
        path = target = f"{base}/{name}"
        if filesystem.type_name not in OBJECT_STORES:
            folder, leaf = split(path)
            filesystem.create_dir(folder, recursive=True)
            target = f"{folder}/.{leaf}.tmp"
        # One call: an exception between opening and closing a stream would leave half an object.
        fs.copy_files(
            str(self.folder / name),
            target,
            source_filesystem=fs.LocalFileSystem(),
            destination_filesystem=filesystem,
        )
        if target != path:
            filesystem.move(target, path)
        log.debug("uploaded %s to %s", name, self.location)

    def _download(self, name: str) -> None:
        filesystem, base = self._store
        with filesystem.open_input_stream(f"{base}/{name}", compression=None) as stream:
            content = stream.read()
        write_atomic(self.folder / name, content)
        log.debug("fetched %s from %s", name, self.location)

    def _delete(self, name: str) -> None:
        filesystem, base = self._store
        with suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{name}")

    def _push_when_due(self, ended: threading.Event) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if ended.is_set():
                return
            self.attempt(self.push)

    def _forget_old(self, stop: Path) -> None:
        """A stop that this machine was told of in an earlier run."""
        with self._reaching():
            if self._stamp_there(stop.name)[0] is None:
                stop.unlink(missing_ok=True)

    def _wait_for_stop(self, stop: Path, ended: threading.Event) -> None:
        while not ended.wait(_POLL_SECONDS):
            if not stop.exists():
                with suppress(UserError):  # an outage is told of by the pushes
                    self.receive(stop.name)


def local_file(location: str, key: str) -> Path:
    """The file itself, or for a URI the working copy that is fetched of it.

    Raises:
        UserError: the store cannot be reached, or has no such file.
    """
    if not is_uri(location):
        return Path(location)
    check(location, key)
    folder, name = split(location)
    here = working_copy(folder)
    StoreMirror(folder, here).fetch(name)
    if not (here / name).exists():
        raise ConfigError(key, location, "there is no such file")
    return here / name


def _is_carried(name: str) -> bool:
    """Hidden files are locks, temporary ones and Ray's."""
    return name not in _OF_ONE_MOMENT and not any(part.startswith(".") for part in PurePosixPath(name).parts)


def _order(name: str) -> tuple[bool, bool, str]:
    """Of transfers: what is resumed from comes after what it needs, what says "finished" last."""
    return name == _RESULT, name.startswith(_CHECKPOINTS), name


def _stamp(path: Path) -> Stamp:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
