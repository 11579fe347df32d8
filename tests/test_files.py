import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zskt_dist.errors import UserError
from zskt_dist.files import (
    lock,
    read_bytes,
    read_json,
    read_json_list,
    remove_leftovers,
    try_lock,
    write_atomic,
    write_atomic_with,
    write_json,
)

HOLDER = """
import sys, time
from pathlib import Path
from zskt_dist.files import try_lock
lock = try_lock(Path(sys.argv[1]))
print(lock is not None, flush=True)
time.sleep(60)
"""


def test_a_file_has_no_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").write_bytes(b"weights")
    inside = tmp_path / "student.safetensors" / "result.json"
    assert (read_json(inside), read_bytes(inside)) == (None, None)


def _fail(*_: object, **__: object) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize(("content", "bytes_"), [(b"\x00new\xff", b"\x00new\xff"), ("β = 250\n", b"\xce\xb2 = 250\n")])
@pytest.mark.parametrize("durable", [True, False])
def test_write_replaces(tmp_path: Path, content: bytes | str, bytes_: bytes, durable: bool) -> None:
    path = tmp_path / "deep" / "er" / "file"
    for _ in range(2):  # new, then over itself
        write_atomic(path, content, durable=durable)
        assert path.read_bytes() == bytes_
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace", "pathlib.Path.replace"])
def test_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(broken, _fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that makes it safe against a power cut: content, fsync, rename, fsync of the folder."""
    path = tmp_path / "file"
    path.write_text("old")
    happened: list[tuple[str, str, bool]] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        is_folder = os.fstat(descriptor).st_ino == tmp_path.stat().st_ino
        size = 0 if is_folder else os.fstat(descriptor).st_size
        happened.append(("fsync folder" if is_folder else f"fsync {size} bytes", path.read_text(), True))
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        happened.append(("rename", path.read_text(), self.parent == path.parent))
        return replace(self, target)

    monkeypatch.setattr("os.fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomic(path, "newer")
    assert happened == [("fsync 5 bytes", "old", True), ("rename", "old", True), ("fsync folder", "newer", True)]


def test_write_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    program = (
        "import os, signal, sys; from pathlib import Path; from zskt_dist.files import write_atomic\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), 'new')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_atomic(path, "newer")
    assert path.read_text() == "newer"


def test_json_round_trip(tmp_path: Path) -> None:
    content = {"name": "β", "list": [1, 2.5, None, True], "nested": {"accuracy": 0.1 + 0.2}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json").read_text().endswith("}\n")


@pytest.mark.parametrize("damage", [b"", b'{"a": 1', b"\xff\xfe", b"{'a': 1}"])
def test_damaged_json_is_none(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_bytes(damage)
    assert read_json(path) is None


def test_lock_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    assert try_lock(tmp_path / "new" / "other") is not None
    first.close()
    again = try_lock(path)
    assert again is not None
    again.close()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_lock_across_processes(tmp_path: Path, end: signal.Signals) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        try:
            assert try_lock(path) is None
        finally:
            holder.send_signal(end)
        holder.wait(timeout=30)
    deadline = time.monotonic() + 5
    while (lock := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock is not None
    # and the other way round: what this process holds, a new one does not get
    program = HOLDER.replace("time.sleep(60)", "")
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    lock.close()


def test_what_a_killed_writer_leaves_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    """The temporary file of a killed process, of a living one, of this process, and files of others."""
    script = """
import sys, time
from pathlib import Path
from zskt_dist.files import write_atomic_with
def write(temporary):
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
write_atomic_with(Path(sys.argv[1]), write)
"""
    names = ("deep/killed", "deep/alive")
    writers = []
    for name in names:
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
    killed, alive = writers
    killed.kill()
    killed.wait()
    others = [tmp_path / name for name in (".mine.tmp", "deep/.x.0123456.tmp", "deep/x.01234567.tmp")]
    for other in others:
        other.touch()
    try:
        write_atomic_with(tmp_path / "own", lambda temporary: (remove_leftovers(tmp_path), temporary.write_text("x")))
        left = sorted(path.name for path in tmp_path.rglob("*.tmp") if path not in others)
        assert [name.split(".")[1] for name in left] == ["alive"]
        assert all(other.exists() for other in others)
        assert (tmp_path / "own").read_text() == "x"
    finally:
        alive.kill()
        alive.wait()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(UserError, match=r"run\.lock cannot be locked \(.*use a runs_dir on a file system with flock"):
        try_lock(tmp_path / "run.lock")
    with pytest.raises(UserError, match="cannot be locked"), lock(tmp_path / "other.lock"):
        pass
    write_atomic(tmp_path / "file", "written all the same")
    remove_leftovers(tmp_path)
    assert (tmp_path / "file").read_text() == "written all the same"


@pytest.mark.parametrize(
    ("number", "goes_on"),
    [(errno.EINVAL, True), (errno.ENOSYS, True), (errno.EIO, False), (errno.ENOSPC, False)],
)
def test_fsync_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, goes_on: bool) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    path = tmp_path / "result.json"
    if goes_on:
        write_atomic(path, "new")
        assert path.read_text() == "new"
        return
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        write_atomic(path, "new")
    assert raised.value.filename == str(path), "so that the user reads which file it is"
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"accuracy": float("nan"), "losses": [1.5, float("inf"), (float("-inf"), 2)], "name": "nan"})
    assert read_json(path) == {"accuracy": None, "losses": [1.5, None, [None, 2]], "name": "nan"}


@pytest.mark.parametrize("content", [b"[1, 2]", b'"text"', b"3", b"null", b"[" * 100_000, b'{"a":' * 100_000])
def test_json_of_another_kind_or_too_deep_is_none_and_said_once(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "command.json"
    path.write_bytes(content)
    assert read_json(path) is None
    assert read_json(path) is None
    assert caplog.messages == [f"{path} is damaged, and counts as missing"]
    assert read_json_list(path) == ([1, 2] if content == b"[1, 2]" else None)
