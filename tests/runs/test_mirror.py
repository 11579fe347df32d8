"""Working copies of two machines and a store, in every state that a killed or disconnected command leaves."""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from tests.support.object_store import ObjectStore
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.files import read_json, write_atomic, write_json
from zskt_dist.runs import mirror as module
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.mirror import Mirror
from zskt_dist.runs.locations import join


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def uri(object_store: ObjectStore) -> str:
    return join(object_store.uri(), "digits", "a")


@pytest.fixture(params=["s3", "file"])
def any_uri(request: pytest.FixtureRequest, object_store: ObjectStore, tmp_path: Path) -> str:
    """A store that replaces objects at once, and one where files are written beside and renamed."""
    runs = object_store.uri() if request.param == "s3" else f"file://{tmp_path}/shared"
    return join(runs, "digits", "a")


def _save(directory: RunDirectory, iteration: int) -> None:
    """What a run writes at a checkpoint."""
    directory.history.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(directory.history, " " * iteration + f"{iteration} rows")  # S3 dates to the second: sizes differ
    write_atomic(directory.snapshots / f"{iteration}.safetensors", f"snapshot {iteration}")
    CheckpointStore(directory.checkpoints).save(iteration, {"iteration": torch.tensor(iteration)})


def _end(directory: RunDirectory) -> None:
    write_atomic(directory.weights("student"), "student")
    directory.finish({"status": "finished"})


def _files(directory: RunDirectory) -> dict[str, bytes]:
    paths = [path for path in directory.path.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(directory.path).as_posix(): path.read_bytes() for path in sorted(paths)}


def test_a_run_goes_from_machine_to_machine(any_uri: str, object_store: ObjectStore) -> None:
    here = RunDirectory(any_uri)
    _save(here, 1)
    here.mirror.push()
    object_store.move_to("there")
    there = RunDirectory(any_uri)
    there.mirror.pull()
    assert _files(there) == _files(here)
    for iteration in (2, 3):
        _save(there, iteration)
    _end(there)
    there.mirror.push()
    here.mirror.pull()
    assert _files(here) == _files(there), "also the pruned checkpoint is gone"
    assert len(list(here.checkpoints.iterdir())) == 2


def test_transient_files_stay_here(uri: str, object_store: ObjectStore) -> None:
    directory = RunDirectory(uri)
    _save(directory, 1)
    for path in (directory.stop, directory.failure, directory.progress, directory.path / ".x.tmp"):
        path.touch()
    lock = directory.try_lock()
    directory.mirror.push()
    assert lock
    lock.close()
    assert {name.split("/", 3)[3].split("/")[0] for name in object_store.names()} == {
        "history.parquet",
        "snapshots",
        "checkpoints",
    }


def test_nothing_new_asks_nothing_of_the_store(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(uri)
    RunDirectory(uri).mirror.push()
    _save(directory, 1)
    directory.mirror.push()

    def unexpected(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "connect", unexpected)
    RunDirectory(uri).mirror.push()


def test_what_the_store_did_not_get_is_not_overwritten(uri: str, object_store: ObjectStore) -> None:
    directory = RunDirectory(uri)
    _save(directory, 1)
    directory.mirror.push()
    _save(directory, 2)
    _end(directory)
    files = _files(directory)
    directory.mirror.pull()
    assert _files(directory) == files
    directory.mirror.push()
    object_store.move_to("there")
    there = RunDirectory(uri)
    there.mirror.pull()
    assert _files(there) == files


def test_where_both_have_changed_the_store_wins_and_no_checkpoint_is_lost(uri: str, object_store: ObjectStore) -> None:
    here = RunDirectory(uri)
    _save(here, 1)
    here.mirror.push()
    object_store.move_to("there")
    there = RunDirectory(uri)
    there.mirror.pull()
    _save(there, 30)
    there.mirror.push()
    _save(here, 20)
    here.mirror.pull()
    assert here.history.read_text().strip() == "30 rows"
    assert [int(path.name[:8]) for path in sorted(here.checkpoints.iterdir())] == [1, 20, 30]


def test_checkpoints_that_were_not_fetched_or_cleared_away_stay_in_the_store(
    uri: str, object_store: ObjectStore
) -> None:
    here = RunDirectory(uri)
    _save(here, 1)
    here.mirror.push()
    before = object_store.files()
    shutil.rmtree(here.checkpoints)  # somebody needs the space
    here.mirror.pull(checkpoints=False)
    here.mirror.push()
    assert object_store.files() == before
    object_store.move_to("there")
    there = RunDirectory(uri)
    there.mirror.pull(checkpoints=False)
    assert not there.checkpoints.exists()
    write_json(there.tracking, {})
    there.mirror.push()
    assert set(object_store.names()) == {*before, "runs/digits/a/mlflow.json"}


def test_pseudo_data_is_fetched_only_where_it_is_asked_for(uri: str, object_store: ObjectStore) -> None:
    here = RunDirectory(uri)
    _save(here, 1)
    write_atomic(here.path / "pseudo_data/train-00000-of-00001.parquet", "images")
    here.mirror.push()
    before = object_store.files()
    object_store.move_to("there")
    there = RunDirectory(uri)
    there.mirror.pull()
    assert not (there.path / "pseudo_data").exists()
    write_json(there.tracking, {})
    there.mirror.push()
    assert set(object_store.names()) == {*before, "runs/digits/a/mlflow.json"}
    there.mirror.pull(checkpoints=False, pseudo_data=True)
    assert (there.path / "pseudo_data/train-00000-of-00001.parquet").read_text() == "images"


def test_a_store_that_has_lost_the_run_gets_it_back(any_uri: str) -> None:
    directory = RunDirectory(any_uri)
    _save(directory, 1)
    directory.mirror.push()
    files = _files(directory)
    filesystem, base = module.connect(any_uri)
    filesystem.delete_dir(base)
    directory.mirror.pull()
    assert _files(directory) == files
    directory.mirror.push()
    shutil.rmtree(directory.path)
    directory.mirror.pull()
    assert _files(directory) == files


def test_starting_over_renames_also_in_the_store(any_uri: str, object_store: ObjectStore) -> None:
    here = RunDirectory(any_uri)
    _save(here, 1)
    _end(here)
    here.mirror.push()
    files = _files(here)
    object_store.move_to("there")
    there = RunDirectory(any_uri)
    there.mirror.pull(checkpoints=False)
    aside = there.move_aside()
    assert aside
    kept = there.sibling(aside.name)
    kept.mirror.pull()
    assert _files(kept) == files
    write_json(there.begun, {})
    there.mirror.push()
    here.mirror.pull()
    assert list(_files(here)) == ["command.json"]


def _readable(uri: str, least: int) -> None:
    """What a new machine finds: the newest checkpoint with its snapshot, and a result only with its student."""
    directory = RunDirectory(uri)
    shutil.rmtree(directory.path, ignore_errors=True)
    directory.mirror.pull()
    saved = CheckpointStore(directory.checkpoints).latest()
    iteration = 0 if saved is None else saved.iteration
    assert iteration >= least
    assert all((directory.snapshots / f"{each}.safetensors").exists() for each in range(1, iteration + 1))
    if directory.finished():
        assert directory.weights("student").read_text() == "student"
        assert iteration == 3
    if directory.history.exists():
        assert directory.history.read_text().endswith(" rows")


class Dying(fs.FSSpecHandler):
    """A filesystem whose `left`-th next change is its last; where it writes, half of it is done."""

    left = 10**9

    def _live(self) -> bool:
        Dying.left -= 1
        return Dying.left >= 0

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        if self._live():
            return super().open_output_stream(path, metadata)
        Path(path).write_bytes(b"half")
        raise Killed

    def move(self, src: str, dest: str) -> None:
        if not self._live():
            raise Killed
        Path(src).replace(dest)

    def delete_file(self, path: str) -> None:
        if not self._live():
            raise Killed
        super().delete_file(path)


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_killed_at_any_write_the_store_can_be_read(
    kind: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of three checkpoints is killed before each change in the store, and then goes on to its end."""

    def writes(uri: str) -> Iterator[int]:
        """Runs to the end or the kill; yields the checkpoints that surely are in the store."""
        directory = RunDirectory(uri)
        for iteration in range(1, 4):
            _save(directory, iteration)
            if iteration == 3:
                _end(directory)
            directory.mirror.push()
            yield iteration

    changes = [0]
    if kind == "file":
        monkeypatch.setattr(Dying, "left", 10**9)
        monkeypatch.setattr(
            module,
            "connect",
            lambda uri: (fs.PyFileSystem(Dying(LocalFileSystem(auto_mkdir=True))), uri.removeprefix("file://")),
        )
    else:  # an object appears whole, so it is killed between objects
        limit = [10**9]
        for name in ("send", "forget"):
            method = getattr(Mirror, name)

            def counted(self: Mirror, path: str, method: Any = method) -> None:
                changes[0] += 1
                if changes[0] > limit[0]:
                    raise Killed
                method(self, path)

            monkeypatch.setattr(Mirror, name, counted)

    def arm(left: int) -> None:
        if kind == "file":
            Dying.left = left
        else:
            changes[0], limit[0] = 0, left

    def used() -> int:
        return 10**9 - Dying.left if kind == "file" else changes[0]

    def place(name: str) -> str:
        return join(object_store.uri() if kind == "s3" else f"file://{tmp_path}/shared", "digits", name)

    arm(10**9)
    assert list(writes(place("whole"))) == [1, 2, 3]
    total = used()
    assert total >= 12
    for left in range(total):
        uri, done = place(f"killed-{left}"), 0
        arm(left)
        with suppress(Killed):
            for iteration in writes(uri):
                done = iteration
        assert done < 3
        arm(10**9)
        _readable(uri, done)
        assert list(writes(uri)) == [1, 2, 3]
        _readable(uri, 3)
        assert len(list(RunDirectory(uri).checkpoints.iterdir())) == 2


def test_an_outage_is_one_warning_and_then_all_is_uploaded(
    uri: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = RunDirectory(uri)
    upload, attempts = Mirror.send, []

    def down(mirror: Mirror, name: str) -> None:
        attempts.append(name)
        raise OSError("the cable\nis out")

    with caplog.at_level(logging.WARNING), directory.mirror.following():
        for iteration in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(Mirror, "send", down)
                _save(directory, iteration)
                seen = len(attempts)
                directory.mirror.push_soon()
                _wait(lambda seen=seen: len(attempts) > seen)
        assert len(caplog.records) == 1
        assert "the cable is out" in caplog.text
        assert str(directory.path) in caplog.text
        assert Mirror.send is upload
        directory.mirror.push_soon()
        _wait(lambda: len(object_store.names()) == 5)
    assert len(caplog.records) == 1


def test_a_stop_and_a_failure_cross_machines(
    uri: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)
    driver = RunDirectory(uri)
    driver.path.mkdir(parents=True)
    object_store.move_to("there")
    rank0 = RunDirectory(uri)
    rank0.path.mkdir(parents=True)
    rank0.stop.touch()  # of an earlier run
    with rank0.mirror.following(rank0.stop):
        assert not rank0.stop.exists()
        driver.stop.touch()
        driver.mirror.send("stop")
        _wait(rank0.stop.exists)
    with rank0.mirror.following(rank0.stop):  # started again, and still asked to stop
        _wait(rank0.stop.exists)
    rank0.leave_failure(Interrupted(3, 10, "shard"))
    with pytest.raises(Interrupted, match="shard 3 of 10"):
        driver.raise_failure()
    driver.clear_requests()
    driver.raise_failure()
    assert object_store.names() == []


def test_no_plain_folder_knows_of_stores(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "runs/digits/a")
    directory.mirror.pull()
    directory.mirror.push()
    directory.clear_requests()
    with directory.mirror.following(directory.stop):
        directory.mirror.push_soon()
    assert not (tmp_path / "runs").exists()


def test_the_record_of_transfers_can_be_lost(uri: str) -> None:
    directory = RunDirectory(uri)
    _save(directory, 1)
    directory.mirror.push()
    files, record = _files(directory), directory.path / ".mirror.json"
    assert set(read_json(record)) == set(files)
    record.write_text(json.dumps(None))
    directory.mirror.pull()
    directory.mirror.push()
    assert _files(directory) == files
    with pytest.raises(UserError, match="cannot be reached"):
        directory.mirror.send("none.json")


def _wait(reached: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
