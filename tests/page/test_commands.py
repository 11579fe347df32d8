"""Which commands write the page, and that it then shows what they have done."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.page.pages import Page
from tests.support.configs import tiny_overrides
from tests.support.stores import new_store
from zskt_dist.commands import evaluate, synthesize, train
from zskt_dist.export import __main__ as export
from zskt_dist.launch import summary
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tracking.mlflow.store import RunAddress

MEASURE = ["transitions.images=2", "transitions.steps=3", "evaluation.noise_images=10"]


def _artifact(directory: RunDirectory, folder: Path) -> str:
    address = RunAddress.read(directory.tracking)
    assert address is not None
    client = MlflowClient(tracking_uri=address.tracking_uri)
    return Path(client.download_artifacts(address.run_id, "index.html", str(folder))).read_text()


@pytest.mark.slow
def test_each_command_adds_what_it_has_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = RunDirectory(tmp_path / "runs/digits/run")
    words = tiny_overrides(tmp_path, "name=run", "launch.workers=1", "launch.kind=local")
    assert train.main([*words, f"tracking.uri={new_store(tmp_path)}"]) == 0
    assert f"page     {directory.page}" in capsys.readouterr().out
    page = Page(directory.page).check()
    known = ["Training", "Pseudo-images over training", "Estimates without labels", "On the test images of digits"]
    assert page.headings[2:-2] == known
    matrix = [row for row in page.rows if len(row) == 11 and row[0].isdigit()]
    assert sum(int(cell or 0) for row in matrix for cell in row[1:]) == 2 * 360, "the test images, for each network"
    accuracy = page.row("accuracy, digits")
    right = [sum(int(row[1 + label] or 0) for label, row in enumerate(part)) for part in (matrix[:10], matrix[10:])]
    assert accuracy == [f"{100 * count / 360:.2f} %" for count in right]
    (tmp_path / "a").mkdir()
    assert _artifact(directory, tmp_path / "a") == page.content
    assert "mean transition error" not in page.text

    assert evaluate.main([str(directory.path), *MEASURE]) == 0
    page = Page(directory.page).check()
    assert page.row("mean transition error, digits")
    assert len(page.row("calibration error, digits")) == 2
    (tmp_path / "b").mkdir()
    assert _artifact(directory, tmp_path / "b") == page.content

    assert export.main([str(directory.path), "--to", "safetensors", "card"]) == 0
    page = Page(directory.page).check()
    assert "Exported files" in page.headings
    assert page.row("export/student.safetensors")[1] == "0.0e+00"
    assert "export/README.md" in page.links
    assert "![The training" in (directory.path / "export/README.md").read_text()
    assert (directory.path / "export/run.png").read_bytes() in {p.read_bytes() for p in directory.figures.glob("*.png")}

    assert synthesize.main([str(directory.path), "--images", "32", "launch.kind=local"]) == 0
    page = Page(directory.page).check()
    assert "32 images with the teacher's answers, from 5 moments of the generator." in page.text
    assert all((directory.path / link).exists() for link in page.links)

    directory.page.unlink()
    assert evaluate.main([str(directory.path), *MEASURE]) == 0, "measured already"
    assert directory.page.exists()


def test_the_page_of_several_seeds(tmp_path: Path) -> None:
    words = ["seeds=[0,1]", "name=run", "launch.workers=1", "launch.kind=local", "iterations=2"]
    assert train.main(tiny_overrides(tmp_path, *words)) == 0
    directory = RunDirectory(tmp_path / "runs/digits/run")
    page = Page(directory.page).check()
    assert page.links == ["../run-seed0/index.html", "../run-seed1/index.html"]
    assert all((directory.path / link).exists() for link in page.links)
    directory.page.unlink()
    assert evaluate.main([str(directory.path), *MEASURE]) == 0
    assert "mean transition error" not in page.text
    assert Page(directory.page).check().row("mean transition error, digits")


def test_without_the_packages_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "needs Matplotlib: pip install 'zskt-dist[report]'"
    monkeypatch.setattr("zskt_dist.page.write.lacking", lambda *_: missing)
    monkeypatch.setattr(summary, "lacking", lambda *_: missing)
    words = tiny_overrides(tmp_path, "name=run", "launch.workers=1", "launch.kind=local", "iterations=2")
    assert train.main(words) == 0
    assert f"page     {missing}" in capsys.readouterr().out
    assert not (tmp_path / "runs/digits/run/index.html").exists()
