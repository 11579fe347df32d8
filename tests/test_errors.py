"""What messages for people have in common."""

import errno
import os
import pickle
from email.message import Message
from urllib.error import HTTPError

import pytest

from zskt_dist.errors import ConfigError, Interrupted, UserError, did_you_mean, guarded


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("digit", "; did you mean 'digits'?"),
        ("beta", "; did you mean 'beta'?"),
        ("gama", "; did you mean 'gamma'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(word: str, hint: str) -> None:
    assert did_you_mean(word, (each for each in ("digits", "beta", "gamut", "gamma"))) == hint


def test_several_words_the_nearest_first() -> None:
    assert did_you_mean("gama", ["gamut", "beta", "gamma"], most=3) == "; did you mean 'gamma' or 'gamut'?"


@pytest.mark.parametrize(
    "error",
    [
        UserError("no teacher"),
        ConfigError("loss.beta", -1, "at least 0"),
        Interrupted(3, 8, "trial"),
        Interrupted(0, 0),
    ],
)
def test_they_travel_between_processes(error: UserError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number), "runs/a/history.parquet")


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: _fail(errno.ENOSPC)) == 2
    assert capsys.readouterr().err == (
        "error: runs/a/history.parquet cannot be written: No space left on device; make room, and the same command "
        "continues from what is saved\n"
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EIO])
def test_a_file_that_cannot_be_used_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: _fail(number)) == 2
    assert capsys.readouterr().err == f"error: runs/a/history.parquet: {os.strerror(number)}\n"


def test_an_answer_of_a_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Its class has a file name, which is the address, and no words of the system."""

    def ask() -> None:
        raise HTTPError("https://example.org/digits.npz", 404, "Not Found", Message(), None)

    assert guarded(ask) == 2
    assert capsys.readouterr().err == "error: https://example.org/digits.npz: HTTP Error 404: Not Found\n"


def test_a_failure_of_the_system_without_a_file_stays_a_traceback() -> None:
    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        guarded(fail)
