"""The report's folder: everything that no report has written stays, whatever happens."""

from pathlib import Path

import pytest

from tests.support.finished import finished_run
from zskt_dist.errors import UserError
from zskt_dist.report import __main__ as command
from zskt_dist.report.folder import replaced


def _write(folder: Path, *names: str) -> None:
    with replaced(folder) as building:
        for name in names:
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            (building / name).write_text(name)


def test_a_run_directory_is_refused_and_keeps_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_run(tmp_path, "train")
    (run / "figures").mkdir()
    (run / "figures/pseudo_images_00000040.png").write_bytes(b"a picture")
    assert command.main([str(run), "--out", str(run), "--no-mlflow"]) == 2
    assert "is a run directory" in capsys.readouterr().err
    assert (run / "figures/pseudo_images_00000040.png").exists()
    assert not (run / "report.md").exists()


def test_a_uri_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path, "train")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert command.main([str(run), "--out", "s3://bucket/report", "--no-mlflow"]) == 2
    assert capsys.readouterr().err == "error: --out='s3://bucket/report': expected a folder of this machine\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_later_report_replaces_the_files_of_the_earlier_and_no_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, "report.md", "figures/old.png")
    (out / "figures/mine.png").write_text("mine")
    _write(out, "report.md", "figures/new.png")
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["mine.png", "new.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "no temporary folder is left"


def test_files_in_the_way_that_no_report_has_written_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(UserError, match=r"report\.md is there already"):
        _write(tmp_path, "report.md")
    assert (tmp_path / "report.md").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"accuracy": 1}', '{"files": ["data.csv"]}', "notes"])
def test_a_list_of_something_else_is_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    (tmp_path / "data.csv").write_text("mine")
    with pytest.raises(UserError, match=r"report\.json is there already"):
        _write(tmp_path, "report.md")
    assert (tmp_path / "report.json").read_text() == content
    assert (tmp_path / "data.csv").exists()


def test_a_report_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, "report.md")

    def fail() -> None:
        with replaced(out) as building:
            (building / "report.md").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (out / "report.md").read_text() == "report.md"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_list_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, "report.md")
    (tmp_path / "mine").write_text("mine")
    (out / "report.json").write_text('{"files": ["../mine", "/etc/hostname", "report.md", 3]}')
    _write(out, "report.md")
    assert (tmp_path / "mine").exists()
