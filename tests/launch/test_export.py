"""`export` and what lies in its folder already."""

from pathlib import Path

import pytest

from tests.deploy.runs import untrained_run
from tests.support.configs import tiny_overrides
from zskt_dist import export, train
from zskt_dist.launch import export as module
from zskt_dist.runtime.directory import RunDirectory


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_files_of_somebody_else_are_left_alone(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked before the run is even looked for."""
    (tmp_path / name).write_text("theirs")
    assert export.main(["nowhere", "--out", str(tmp_path)]) == 2
    said = f"error: --out='{tmp_path}': holds a {name} of something else; choose another folder\n"
    assert capsys.readouterr().err == said
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "theirs"


def test_what_a_killed_export_has_left_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["name=a", "iterations=1", "supervised.iterations=1", "evaluation.every=0", "tracking.images=0"]
    assert train.main(tiny_overrides(tmp_path, *few)) == 0
    arguments = [str(tmp_path / "runs/digits/a"), "--to", "safetensors", "card", "--out", str(tmp_path / "out")]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_card", killed)
        assert export.main(arguments) == 130
    assert (tmp_path / "out/config.json").exists()
    assert export.main(arguments) == 0
    assert (tmp_path / "out/README.md").exists()


def test_a_folder_holds_one_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (untrained_run(tmp_path / name) for name in ("a", "b"))
    out = tmp_path / "out"
    arguments = ["--to", "safetensors", "--out", str(out)]
    assert export.main([str(first), *arguments]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ["config.json", "export.json", "student.safetensors"]
    capsys.readouterr()
    assert export.main([str(second), *arguments]) == 2
    held = f"{out} holds the student of digits/run with other weights"
    assert capsys.readouterr().err == f"error: {held}; choose another folder with --out, or remove it\n"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert export.main([str(first), *arguments]) == 0


def test_a_run_made_anew_is_exported_into_its_folder(tmp_path: Path) -> None:
    run = untrained_run(tmp_path)
    assert export.main([str(run), "--to", "safetensors"]) == 0
    earlier = RunDirectory(run).move_aside()  # as --fresh does
    assert earlier
    assert untrained_run(tmp_path, arch="lenet-2") == run
    assert export.main([str(run), "--to", "safetensors"]) == 0
    files = [folder / "export/student.safetensors" for folder in (earlier, run)]
    assert files[0].read_bytes() != files[1].read_bytes()
