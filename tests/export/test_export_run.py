"""`export` and what lies in its folder already."""

from pathlib import Path

import pytest

from tests.export.runs import untrained_run
from tests.support.configs import tiny_overrides
from zskt_dist.commands import train
from zskt_dist.export import __main__ as export
from zskt_dist.export import export_run as module
from zskt_dist.files import read_json
from zskt_dist.runs.directory import RunDirectory

THEIRS = {
    "README.md": "card",
    "config.json": "safetensors",
    "export.json": "card",
    "student.safetensors": "safetensors",
    "student.pt2": "pt2",
    "student.onnx": "onnx",
    "student.int8.onnx": "int8",
}


@pytest.mark.parametrize("name", THEIRS)
def test_files_of_somebody_else_are_left_alone(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the format would fail, and the file of that name be taken away."""
    run, out = untrained_run(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("theirs")
    assert export.main([str(run), "--to", THEIRS[name], "--tolerance", "0", "--out", str(out)]) == 2
    said = f"error: --out='{out}': holds {name}, which no export has written; choose another folder\n"
    assert capsys.readouterr().err == said
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "theirs"}


def test_files_of_other_names_stay_beside_an_export(tmp_path: Path) -> None:
    run, out = untrained_run(tmp_path), tmp_path / "out"
    assert export.main([str(run), "--to", "safetensors", "--out", str(out)]) == 0
    (out / "student.pt2").write_text("theirs")
    assert export.main([str(run), "--to", "safetensors", "--out", str(out)]) == 0
    assert export.main([str(run), "--to", "safetensors", "pt2", "--out", str(out)]) == 2
    assert (out / "student.pt2").read_text() == "theirs"


@pytest.mark.parametrize("broken", [False, True])
def test_a_run_directory_keeps_its_student(
    broken: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = untrained_run(tmp_path)
    before = {path: path.read_bytes() for path in run.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("no more room")

    if broken:
        monkeypatch.setattr("zskt_dist.export.exporter.write_weights", fail)
    assert export.main([str(run), "--to", "safetensors", "--out", str(run)]) == 2
    assert capsys.readouterr().err == f"error: --out {run}: is a run directory; choose a folder of its own\n"
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained_run(tmp_path)
    weights = run / "student.safetensors"
    assert export.main([str(weights)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {weights}: no finished run; export takes a folder")
    assert export.main([str(run), "--out", str(weights)]) == 2
    assert capsys.readouterr().err == f"error: --out='{weights}': is a file; expected a folder\n"
    assert export.main([str(run), "--out", str(weights / "below")]) == 2
    assert capsys.readouterr().err == f"error: {weights / 'below'}: Not a directory\n"


def test_a_uri_is_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which a path would make the local folder `s3:`."""
    run = untrained_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert export.main([str(run), "--to", "safetensors", "--out", "s3://bucket/a"]) == 2
    assert capsys.readouterr().err == "error: --out='s3://bucket/a': expected a folder of this machine\n"
    assert sorted(tmp_path.iterdir()) == before


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


def test_files_of_earlier_exports_keep_the_conditions_they_were_made_under(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(untrained_run(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(module, "installed_version", {"torch": "2.5.0"}.get)
        patch.setattr("torch.get_num_threads", lambda: 2)
        assert export.main([run, "--to", "pt2", "--tolerance", "0.5"]) == 0
    told = "student.pt2 was exported earlier, with tolerance 0.5, 2 threads, torch 2.5.0"
    card = tmp_path / "digits/run/export/README.md"
    assert told not in capsys.readouterr().out
    for _ in range(2):  # also when it is kept again
        assert export.main([run, "--to", "safetensors", "card"]) == 0
        assert told in capsys.readouterr().out
        assert f"Up to 0.0001 is accepted. Otherwise: {told}.\n" in card.read_text()
    entries = read_json(card.with_name("export.json"))["files"]
    assert (entries["pt2"]["made"]["tolerance"], entries["pt2"]["made"]["threads"]) == (0.5, 2)
    assert export.main([run, "--to", "pt2", "card"]) == 0
    assert "exported earlier" not in capsys.readouterr().out + card.read_text()


def test_the_yardstick_is_the_first_thing_a_card_estimates(tmp_path: Path) -> None:
    told = {"agreement": 0.875, "low": 0.84, "high": 0.9, "images": 1512, "sha256": "ab12"}
    run = untrained_run(tmp_path, kind="inversion", yardstick=told, estimates={"sources": {}})
    assert export.main([str(run), "--to", "safetensors", "card"]) == 0
    section = (run / "export/README.md").read_text().partition("## Estimated quality")[2].partition("##")[0]
    assert "**87.50 %** (95 % interval 84.00 % to 90.00 %): on so many of 1,512 images made from the teacher" in section
    assert "`ab12`" in section


def test_a_run_made_anew_is_exported_into_its_folder(tmp_path: Path) -> None:
    run = untrained_run(tmp_path)
    assert export.main([str(run), "--to", "safetensors"]) == 0
    earlier = RunDirectory(run).move_aside()  # as --fresh does
    assert earlier
    assert untrained_run(tmp_path, arch="lenet-2") == run
    assert export.main([str(run), "--to", "safetensors"]) == 0
    files = [folder / "export/student.safetensors" for folder in (earlier, run)]
    assert files[0].read_bytes() != files[1].read_bytes()
