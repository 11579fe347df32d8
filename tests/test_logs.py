"""What reaches stderr: in which format, from which logger, at which level."""

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator

import pytest

from tests.support import commands
from zskt_dist import logs
from zskt_dist.logs import NOTE, VARIABLE, Format, adopt, parse, set_up, verbosity


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers belong to the process; the time of records is 12:03:14 in every time zone."""
    root, ours = logging.getLogger(), logging.getLogger("zskt_dist")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    monkeypatch.setattr(logs, "set_up", set_up)  # the real one, which tests do without elsewhere
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(Format, "converter", lambda self, seconds: time.struct_time((2026, 1, 1, 12, 3, 14, 3, 1, 0)))
    yield
    os.environ.pop(VARIABLE, None)  # which `set_up` leaves to the processes that it starts
    root.handlers = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def _parse(*arguments: str) -> None:
    parse(argparse.ArgumentParser(), arguments)


def _say() -> None:
    for logger in (logging.getLogger("zskt_dist.launch.driver"), logging.getLogger("library.module")):
        logger.debug("debug")
        logger.info("info")
        logger.log(NOTE, "note")
        logger.warning("warning")


QUIET = ["NOTE note", "WARNING warning", "WARNING library.module: warning"]
_LIBRARY = ["INFO library.module: info", "NOTE library.module: note", QUIET[2]]
DETAILED = ["DEBUG debug", "INFO info", *QUIET[:2], *_LIBRARY]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], QUIET),
        (["-v"], ["INFO info", *QUIET]),
        (["--verbose"], ["INFO info", *QUIET]),
        (["-vv"], DETAILED),
        (["-v", "-v", "-v"], DETAILED),
    ],
)
def test_levels_of_ours_and_of_libraries(
    arguments: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _parse(*arguments)
    _say()
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"12:03:14 {line}" for line in lines]
    assert printed.out == ""


def test_what_is_started_has_the_same_level_and_again_is_no_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    _parse("-v")
    assert (os.environ[VARIABLE], verbosity()) == ("INFO", 1)
    set_up()  # as a worker does, which knows the environment alone
    _say()
    assert capsys.readouterr().err.splitlines() == [f"12:03:14 {line}" for line in ["INFO info", *QUIET]]


def test_a_level_that_is_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "loud")
    with pytest.raises(SystemExit) as end:
        _parse()
    assert end.value.code == 2
    assert f"{VARIABLE}='loud': expected NOTE, INFO or DEBUG" in capsys.readouterr().err


def test_each_line_of_a_worker_bears_its_rank_and_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    set_up()
    try:
        raise ValueError("no such thing")
    except ValueError:
        logging.getLogger("library").exception("one\ntwo")
    warnings.warn("old habit", FutureWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "12:03:14 rank 1  ERROR library: one",
        "12:03:14 rank 1  ERROR library: two",
        "12:03:14 rank 1  ERROR library: Traceback (most recent call last):",
    ]
    assert lines[-2] == "12:03:14 rank 1  ERROR library: ValueError: no such thing"
    assert lines[-1].startswith(f"12:03:14 rank 1  WARNING FutureWarning: old habit ({__file__}:")
    set_up(who="trial 3")
    logging.getLogger("zskt_dist").warning("slow")
    assert capsys.readouterr().err == "12:03:14 trial 3  WARNING slow\n"


def test_on_a_terminal_the_driver_leaves_out_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    set_up()
    logging.getLogger("zskt_dist").warning("slow")
    assert capsys.readouterr().err == "WARNING slow\n"


def test_a_library_with_a_handler_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    logger, other = logging.getLogger("loud.part"), logging.getLogger("louder")
    kept = logging.NullHandler()
    for each in (logger, other):
        each.handlers, each.propagate = [logging.StreamHandler(sys.stdout), kept], False
    adopt("loud")
    logger.warning("hello")
    other.warning("hello")
    printed = capsys.readouterr()
    assert printed.err == "12:03:14 WARNING loud.part: hello\n"
    assert printed.out == "hello\n"
    assert logger.handlers == [kept]


def test_torch_and_mlflow_in_a_real_process(tmp_path: commands.Path) -> None:
    """Both bring handlers and formats of their own when they are imported."""
    (tmp_path / "program.py").write_text(
        "import logging\n"
        "from zskt_dist import logs\n"
        "logs.set_up(who='rank 0')\n"
        "import torch\n"
        "from zskt_dist.tracking.mlflow.store import check_reachable\n"
        "logs.adopt('torch')\n"
        "check_reachable('sqlite:///mlflow.db')\n"
        "for name in ('torch._dynamo.part', 'mlflow.part'):\n"
        "    logging.getLogger(name).warning('hello')\n"
    )
    code, output = commands.module("program", folder=tmp_path)
    assert code == 0, output
    lines = [line.partition(" ")[2] for line in output.splitlines()]
    assert lines == ["rank 0  WARNING torch._dynamo.part: hello", "rank 0  WARNING mlflow.part: hello"]


def test_names() -> None:
    """Ray Train's own handler on a worker's root logger is found by its name, else each line would come twice."""
    root = logging.getLogger()
    theirs = logging.StreamHandler()
    theirs.name = "console"
    root.addHandler(theirs)
    logs.set_up()
    assert theirs not in root.handlers
    assert [handler.name for handler in root.handlers].count("console") == 1
