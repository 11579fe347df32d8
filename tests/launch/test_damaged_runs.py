"""What is kept is checked before it is used: a finished run whose files have changed since."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.configs import tiny_overrides
from tests.support.damage import flip_a_byte
from zskt_dist.commands import evaluate, synthesize, train
from zskt_dist.export import __main__ as export
from zskt_dist.runs.directory import RunDirectory

DAMAGES = {"flipped": flip_a_byte, "missing": Path.unlink}
SMALL = ("evaluation.snapshots=2", "name=run", "launch.workers=1", "launch.kind=local")
STUDENT, TEACHER = "digits/run/student.safetensors", "teachers/lenet-digits-*/teacher.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert train.main(tiny_overrides(folder, *SMALL)) == 0
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run with its teacher."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    begun = tmp_path / "runs/digits/run/command.json"
    begun.write_text(begun.read_text().replace(str(trained), str(tmp_path)))
    return tmp_path


def _file(folder: Path, pattern: str) -> Path:
    (found,) = (folder / "runs").glob(pattern)
    return found


@pytest.mark.parametrize("pattern", [STUDENT, TEACHER])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_same_command_makes_it_again(
    folder: Path,
    pattern: str,
    damage: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student = _file(folder, STUDENT)
    file = _file(folder, pattern)
    expected, results = file.read_bytes(), student.read_bytes()
    damage(file)
    if pattern == TEACHER:  # a finished student needs its teacher no more
        student.parent.rename(folder / "aside")
    assert train.main(tiny_overrides(folder, *SMALL)) == 0
    assert ("teacher.safetensors is" in caplog.text) == (pattern == TEACHER)
    assert file.read_bytes() == expected
    assert student.read_bytes() == results
    result = json.loads((student.parent / "result.json").read_text())
    assert result["resumed_from"] == (None if pattern == TEACHER else 10)
    assert train.main(tiny_overrides(folder, *SMALL)) == 0
    assert "Finished earlier" in capsys.readouterr().out


def test_the_user_hears_what_was_damaged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    student = _file(folder, STUDENT)
    flip_a_byte(student)
    train.main(tiny_overrides(folder, *SMALL))
    said = f"{student} is damaged: its SHA-256 is not the one in files.sha256 beside it; the run goes on from its last"
    assert caplog.text.count(said) == 1


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize(
    ("verb", "pattern"),
    [
        ("evaluate", STUDENT),
        ("evaluate", TEACHER),
        ("export", STUDENT),
        ("synthesize", TEACHER),
        ("synthesize", "digits/run/snapshots/generator_00000005.safetensors"),
    ],
)
def test_other_commands_name_the_file_and_say_what_to_do(
    folder: Path, verb: str, pattern: str, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = folder / "runs/digits/run", _file(folder, pattern)
    result = (run / "result.json").read_bytes()
    damage(file)
    commands = {
        "evaluate": lambda: evaluate.main([str(run), "transitions.images=2", "transitions.steps=3"]),
        "export": lambda: export.main([str(run), "--to", "safetensors", "--out", str(folder / "out")]),
        "synthesize": lambda: synthesize.main([str(run), "--out", str(folder / "out"), "--images", "32"]),
    }
    assert commands[verb]() == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert file.name in err
    assert "restore it" in err or "say where it is" in err
    assert (run / "result.json").read_bytes() == result


def test_a_teacher_that_was_named_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(folder, TEACHER)
    flip_a_byte(file)
    assert train.main(tiny_overrides(folder, f"teacher.checkpoint={file}", "name=other")) == 2
    assert f"teacher.checkpoint='{file}': is damaged" in capsys.readouterr().err


def test_a_checkpoint_under_another_iteration_is_damaged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunDirectory(folder / "runs/digits/run")
    expected = run.weights("student").read_bytes()
    run.result.unlink()
    newest = max(run.checkpoints.glob("*.pt"))
    newest.rename(newest.with_name(newest.name.replace("00000010", "00000012")))
    assert train.main(tiny_overrides(folder, *SMALL)) == 0
    assert "is damaged; trying the one before" in caplog.text
    assert run.weights("student").read_bytes() == expected


def test_hashes_that_are_damaged_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sums = folder / "runs/digits/run/files.sha256"
    flip_a_byte(sums, 5)
    assert train.main(tiny_overrides(folder, *SMALL)) == 2
    assert (
        capsys.readouterr().err
        == f"error: {sums} is damaged; restore it, or delete it: then its files are not checked\n"
    )


def test_a_lost_student_without_checkpoints_is_not_trained_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(folder / "runs/digits/run")
    run.weights("student").unlink()
    shutil.rmtree(run.checkpoints)
    assert train.main(tiny_overrides(folder, *SMALL)) == 2
    expected = "is missing, and there is no checkpoint to make it from; restore it, or start over with --fresh\n"
    assert capsys.readouterr().err.endswith(expected)
    assert run.result.exists()


def test_checkpoints_named_by_earlier_versions_are_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whose digest was of the content alone."""
    run = RunDirectory(folder / "runs/digits/run")
    run.result.unlink()
    for path in run.checkpoints.glob("*.pt"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(path.with_name(f"{path.name.split('-')[0]}-{digest}.pt"))
    assert train.main(tiny_overrides(folder, *SMALL)) == 0
    assert "damaged" not in caplog.text
    assert json.loads(run.result.read_text())["resumed_from"] == 10


def test_a_lost_student_of_several_seeds_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = tiny_overrides(tmp_path, *SMALL, "seeds=[0,1]", "teacher.seed=0")
    assert train.main(words) == 0
    student = tmp_path / "runs/digits/run-seed1/student.safetensors"
    expected = student.read_bytes()
    student.unlink()
    assert train.main(words) == 0
    assert student.read_bytes() == expected
    assert f"{student} is missing; the run goes on from its last checkpoint" in caplog.text
