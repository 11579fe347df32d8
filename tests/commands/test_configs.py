"""`zskt configs`: every shipped file has a name and a title, and a copy is never written over a file."""

from pathlib import Path

import pytest

from zskt_dist.__main__ import main as zskt
from zskt_dist.commands.configs import main
from zskt_dist.config.shipped import shipped
from zskt_dist.version import __version__


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    rows = dict(line.strip().split(maxsplit=1) for line in printed.splitlines() if line.startswith("  "))
    assert rows.keys() == shipped().keys()
    assert rows["sweeps/pairs"] == "All teacher-student pairs and seeds, on 8x8 digits."
    sections = printed.split("\n\n")
    assert [section.splitlines()[0] for section in sections] == [
        "zskt train --config NAME",
        "zskt reproduce NAME",
        "zskt sweep --config NAME",
    ]
    assert ["\n  two_cores/digits " in section for section in sections] == [True, False, False]
    assert ["\n  two_cores/graph " in section for section in sections] == [False, True, False]
    assert ["\n  sweeps/beta " in section for section in sections] == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "file"),
    [(["digits"], "digits.yaml"), (["sweeps/beta.yaml"], "beta.yaml"), (["sweeps/beta", "mine.yaml"], "mine.yaml")],
)
def test_a_copy(
    arguments: list[str], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{file} is a copy of {arguments[0]}\n"
    copied = Path(file).read_text()
    assert copied == shipped()[arguments[0].removesuffix(".yaml")].read_text()
    Path(file).write_text("mine")
    assert main(arguments) == 2
    problem = f"error: {file} exists already; name another file: zskt configs {arguments[0]} FILE\n"
    assert capsys.readouterr().err == problem
    assert Path(file).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["digts"], "no shipped configuration is named 'digts'; did you mean 'digits'? `zskt configs` lists them"),
        (["/digits"], "no shipped configuration is named '/digits'; did you mean 'digits'? `zskt configs` lists them"),
        (["digits", "no/folder.yaml"], "no/folder.yaml: No such file or directory"),
    ],
)
def test_what_cannot_be_copied(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {problem}\n"
    assert not list(tmp_path.iterdir())


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["zskt", "--version"])
    assert zskt() == 0
    assert capsys.readouterr().out == f"zskt-dist {__version__}\n"
