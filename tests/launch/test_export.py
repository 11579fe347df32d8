"""`export` and what lies in its folder already."""

from pathlib import Path

import pytest

from tests.support.configs import tiny_overrides
from zskt_dist import export, train
from zskt_dist.launch import export as module


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
