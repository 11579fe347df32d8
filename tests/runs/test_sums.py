import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.support.damage import flip_a_byte
from zskt_dist.errors import UserError
from zskt_dist.runs.sums import NAME, files_of, problem_of, read_recorded, write_recorded


def test_what_was_written_is_read(tmp_path: Path) -> None:
    sha256 = write_recorded(tmp_path / "b.bin", b"second")
    assert sha256 == hashlib.sha256(b"second").hexdigest()
    write_recorded(tmp_path / "a.bin", b"first")
    write_recorded(tmp_path / "a.bin", b"first again")
    assert read_recorded(tmp_path / "a.bin", "") == b"first again"
    assert (tmp_path / NAME).read_text().splitlines()[1] == f"{sha256}  b.bin"
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", NAME], cwd=tmp_path, check=True)


@pytest.mark.parametrize("place", [0, 3, -1])
def test_any_flipped_byte_is_noticed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "a.bin"
    write_recorded(path, b"content")
    flip_a_byte(path, place)
    with pytest.raises(UserError, match=f"a.bin is damaged: its SHA-256 is not the one in {NAME} beside it; do this"):
        read_recorded(path, "do this")


def test_another_whole_file_in_its_place_is_noticed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_recorded(tmp_path / name, name.encode())
    (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes())
    assert "is damaged" in str(problem_of(tmp_path / "a", (tmp_path / "a").read_bytes()))


def test_a_missing_file_is_still_one_of_the_folder(tmp_path: Path) -> None:
    for name in ("round-1.bin", "round-0.bin", "other.bin"):
        write_recorded(tmp_path / name, b"")
    (tmp_path / "round-0.bin").unlink()
    (tmp_path / "round-2.bin").touch()
    assert [path.name for path in files_of(tmp_path, "round-*")] == ["round-0.bin", "round-1.bin", "round-2.bin"]
    with pytest.raises(UserError, match="round-0.bin is missing; restore it"):
        read_recorded(tmp_path / "round-0.bin", "restore it")
    assert files_of(tmp_path / "nowhere", "*") == []


def test_files_that_nobody_recorded_are_not_checked(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"anything")
    assert problem_of(tmp_path / "mine", b"anything") is None


def test_hashes_that_are_damaged(tmp_path: Path) -> None:
    write_recorded(tmp_path / "a", b"")
    flip_a_byte(tmp_path / NAME, 5)
    assert problem_of(tmp_path / "a", b"") is None, "in a folder of somebody else's the file may have another format"
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=f"{NAME} is damaged; restore it, or delete it"):
        problem_of(tmp_path / "a", b"")


def test_a_kill_between_hash_and_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recorded(tmp_path / "a", b"before")
    from zskt_dist.runs import sums

    def killed(path: Path, content: bytes | str) -> None:
        if path.name == "a":
            raise KeyboardInterrupt
        path.write_text(str(content))

    monkeypatch.setattr(sums, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        write_recorded(tmp_path / "a", b"after")
    assert problem_of(tmp_path / "a", (tmp_path / "a").read_bytes())
