"""Every verb has a module, answers --help fast, and says what it does."""

import importlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zskt_dist.__main__ import VERBS, module_of
from zskt_dist.files import check_json


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_fast_and_imports_nothing_heavy(verb: str) -> None:
    module = module_of(verb)
    heavy = ("torch", "ray", "mlflow", "pandas", "matplotlib", "pydantic")
    program = (
        f"import sys, importlib; module = importlib.import_module({module!r})\n"
        "try: module.main(['--help'])\n"
        f"except SystemExit as end: assert not end.code; assert not set({heavy!r}) & set(sys.modules), sys.modules\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert "-v, --verbose" in done.stdout
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2, "CPU-seconds, whatever the load"


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("evaluate", "no finished run; evaluate takes a folder"),
        ("export", "no finished run; export takes a folder"),
        ("synthesize", "no finished run; synthesize takes a folder"),
        ("replay", "is no run directory"),
    ],
)
def test_a_file_in_place_of_its_run_is_one_line(
    verb: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "student.safetensors"
    weights.write_bytes(b"weights")
    assert importlib.import_module(module_of(verb)).main([str(weights)]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("verb", ["train", "evaluate", "export", "synthesize"])
@pytest.mark.parametrize(
    ("name", "problem"),
    [("file/a.json", "cannot be written in {folder}/file: File exists"), ("folder", "is a folder")],
)
def test_where_json_cannot_be_written_nothing_is_begun(
    verb: str, name: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after hours of work."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    run = tmp_path / "runs/digits/a"
    arguments = [f"runs_dir={tmp_path / 'runs'}", "name=a"] if verb == "train" else [str(run)]
    command = importlib.import_module(module_of(verb))
    assert command.main([*arguments, "--json", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err == f"error: --json='{tmp_path / name}': {problem.format(folder=tmp_path)}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_the_folder_of_json_is_made(tmp_path: Path) -> None:
    check_json(tmp_path / "deep/er/a.json")
    assert list((tmp_path / "deep/er").iterdir()) == []
