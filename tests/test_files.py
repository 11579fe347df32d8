import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zskt_dist.files import read_bytes, read_json, try_lock, write_atomic, write_json

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
