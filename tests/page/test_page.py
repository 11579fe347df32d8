"""The page of a run: it stands alone and shows what was measured, all of it and nothing else."""

import io
import json
import xml.etree.ElementTree as ET
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.page.pages import Page
from tests.support.finished import finished_run
from tests.support.images import png
from zskt_dist.evaluation.confusion import FILE, confusion_of, write_confusion
from zskt_dist.page import write
from zskt_dist.page.write import update_page
from zskt_dist.report import __main__ as report
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tracking.local import History

SOURCE = {
    "images": 512,
    "agreement": 0.875,
    "agreement_low": 0.84,
    "agreement_high": 0.9,
    "chance_agreement": 0.1,
    "kl_50": 0.125,
    "teacher_classes": 10,
}
YARDSTICK = {"agreement": 0.875, "low": 0.84, "high": 0.9, "images": 512, "sha256": "ab12"}
HOSTILE = "<script>alert(1)</script>"


def _run(folder: Path, kind: str = "train", *overrides: str, **result: Any) -> RunDirectory:
    path = finished_run(folder, kind, 0, 0.8, *overrides, pair=("lenet-2", "lenet"), dataset="digits", name="run")
    known = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(known | {"world_size": 1, "device": "cpu"} | result))
    return RunDirectory(path)


def _page(directory: RunDirectory) -> Page:
    assert update_page(directory) == directory.page
    return Page(directory.page).check()


def _with_pictures(directory: RunDirectory, side: int = 50, count: int = 3, grey: bool = True) -> None:
    """Grids of pseudo-images and curves."""
    history = History(directory.history)
    for number in range(1, count + 1):
        history.log({"iteration": number, "time": number, "kl": 1 / number, "attention": 0.0, "accuracy": number / 10})
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        directory.figures.mkdir(exist_ok=True)
        picture = png(np.repeat(pixels[:, :, :1], 3, axis=2) if grey else pixels)
        (directory.figures / f"pseudo_images_{number:08d}.png").write_bytes(picture)
    history.write()


def _without_data(folder: Path, **result: Any) -> RunDirectory:
    student = {"arch": "lenet", "params": 30, "accuracy_last": None, "agreement": None, "sha256": "0"}
    teacher = {"arch": "lenet-2", "params": 120, "accuracy": None}
    return _run(folder, "train", "data.name=none", dataset="none", teacher=teacher, student=student, **result)


def test_a_run_without_labels_has_nothing_of_labels(tmp_path: Path) -> None:
    directory = _without_data(tmp_path, yardstick=YARDSTICK, estimates={"sources": {"yardstick": SOURCE}})
    page = _page(directory)
    assert page.headings == [
        "digits / run",
        "Teacher and student",
        "Agreement with the teacher, without labels",
        "Training",
        "Estimates without labels",
        "Settings",
        "Where it comes from",
    ]
    assert page.row("parameters") == ["120", "30 (25.0 %)"]
    assert page.row("yardstick") == ["512", "87.50 % (84.0 % to 90.0 %)", "10.0 %", "0.125", "10"]
    assert "left:84.00%;width:6.00%" in page.content
    assert "87.50 % of 512 images, 95 % interval 84.0 % to 90.0 %" in page.text
    assert "accuracy" not in page.text
    assert page.pictures() == []
    assert "python -m zskt_dist.evaluate runs/digits/run data.name=parquet data.root=FOLDER" in page.text


def test_what_others_measured_later_is_shown_with_its_data(tmp_path: Path) -> None:
    directory = _without_data(tmp_path)
    directory.weights("student").write_bytes(b"weights")
    folder = directory.evaluation / "other-1"
    folder.mkdir(parents=True)
    answer = {"accuracy": 0.75, "teacher_accuracy": 1.0, "agreement": 0.7, "mte": None}
    data = {"name": "parquet", "root": f"/somewhere/{HOSTILE.replace('/', '')}"}
    for weights, shown in (("of another student", False), (sha256(b"weights").hexdigest(), True)):
        settings = {"data": data, "weights": {"student": weights}}
        (folder / "evaluation.json").write_text(json.dumps(answer | {"settings": settings}))
        write_confusion(folder / FILE, confusion_of({"student": [[2, 1], [0, 1]], "teacher": [[3, 0], [0, 1]]}, None))
        page = _page(directory)
        assert (f"accuracy, {HOSTILE.replace('/', '')}" in page.text) == shown
    assert page.row(f"accuracy, {HOSTILE.replace('/', '')}") == ["100.00 %", "75.00 %"]
    assert page.row("0 taken for 1") == ["0", "1"]


def test_classes_that_are_taken_for_others(tmp_path: Path) -> None:
    directory = _run(tmp_path, num_classes=3)
    counts = {"teacher": [[2, 0, 0], [0, 1, 0], [0, 0, 1]], "student": [[1, 1, 0], [0, 0, 1], [0, 0, 1]]}
    write_confusion(directory.evaluation / FILE, confusion_of(counts, ["cat", HOSTILE, "dog"]))
    page = _page(directory)
    assert ["cat", "1", "1", ""] in page.rows
    assert ["dog", "", "", "1"] in page.rows
    assert 'class="wrong" style="--share:0.500"' in page.content, "half of the cats"
    assert 'class="wrong" style="--share:1.000"' in page.content
    short = HOSTILE[:23] + "…"
    assert page.row(f"cat taken for {short}") == ["0", "1"]
    assert page.row(f"{short} taken for dog") == ["0", "1"]


def test_many_classes_are_a_list_of_errors(tmp_path: Path) -> None:
    directory = _run(tmp_path)
    student = np.diag(np.full(100, 5))
    student[7, 9], student[20, 3] = 4, 2
    write_confusion(directory.evaluation / FILE, confusion_of({"student": student}, None))
    page = _page(directory)
    assert "Rows are labels" not in page.text
    errors = [row for row in page.rows if " taken for " in row[0]]
    assert errors == [["7 taken for 9", "4"], ["20 taken for 3", "2"]]


def test_names_of_a_run_do_nothing(tmp_path: Path) -> None:
    network = {"arch": f"{HOSTILE}<img src=x onerror=alert(1)>", "params": 30, "accuracy_last": 0.5, "agreement": 0.5}
    directory = _run(tmp_path, experiment=HOSTILE, name="</title>", student=network, git_commit='"><script>')
    assert HOSTILE in _page(directory).text
    assert Page(directory.page).headings[0] == f"{HOSTILE} / </title>"


def test_what_trains_a_teacher_and_what_has_none(tmp_path: Path) -> None:
    teacher = _page(_run(tmp_path / "a", "teacher"))
    assert teacher.headings[1] == "Teacher"
    assert teacher.row("accuracy, digits") == ["80.00 %"]
    scratch = _page(_run(tmp_path / "b", "scratch"))
    assert scratch.headings[1] == "Student"
    assert scratch.row("accuracy, digits") == ["80.00 %"]


def test_seeds_link_their_pages(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.75), (1, 0.85)):
        finished_run(tmp_path, "train", seed, accuracy, pair=("lenet-2", "lenet"), dataset="digits", name=f"a{seed}")
    student = {"arch": "lenet", "params": 1, "accuracy_last": 0.8, "accuracy_last_std": 0.05, "agreement": 0.8}
    page = _page(_run(tmp_path, seeds=[0, 1], runs=["a0", "a1"], student=student))
    assert page.links == ["../a0/index.html", "../a1/index.html"]
    assert page.row("accuracy, digits") == ["95.00 %", "80.00 ± 5.00 %"]
    assert (page.row("0"), page.row("1")) == (["75.00 %", "75.00 %"], ["85.00 %", "85.00 %"])


def test_names_of_seeds_lead_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = _run(tmp_path, seeds=[0], runs=["../../elsewhere"])
    assert update_page(directory) is None
    assert "that lies elsewhere" in caplog.text
    assert not directory.page.exists()


@pytest.mark.rendered
def test_curves_and_pseudo_images_are_small_pictures_and_always_the_same(tmp_path: Path) -> None:
    directory = _run(tmp_path)
    _with_pictures(directory, side=600, count=9)
    page = _page(directory)
    assert directory.page.read_bytes() == _page(directory).content.encode(), "twice the same"
    drawn = [content for content in page.pictures() if content.startswith(b"<?xml")]
    assert len(drawn) == 2, "scores and losses"
    texts = ["".join(ET.fromstring(each).itertext()) for each in drawn]
    assert "accuracy" in texts[0]
    assert "KL(teacher || student)" in texts[1]
    assert "attention maps" not in texts[1], "it was 0 throughout"
    assert all(b"prefers-color-scheme:dark" in each and b"var(--ink)" in each for each in drawn)
    grids = [Image.open(io.BytesIO(each)) for each in page.pictures() if each not in drawn]
    assert [(grid.size, grid.mode) for grid in grids] == [((256, 256), "L")] * 6, "a byte for a grey pixel"
    assert "iteration 1" in page.text
    assert "iteration 9" in page.text


@pytest.mark.rendered
def test_a_page_is_smaller_than_2_megabytes(tmp_path: Path) -> None:
    """Of the largest run: pictures of noise, which cannot be compressed, long curves, a long configuration."""
    directory = _run(tmp_path)
    _with_pictures(directory, side=256, count=6, grey=False)
    history = History(directory.history)
    noise = np.random.default_rng(0).random((2_000, 4))
    names = ("accuracy", "agreement", "yardstick_agreement", "kl")
    for number, row in enumerate(noise.tolist()):
        history.log({"iteration": number, "time": number, **dict(zip(names, row, strict=True))})
    history.write()
    directory.config.write_text(directory.config.read_text() + "# long\n" * 20_000)
    counts = np.random.default_rng(0).integers(0, 3, (300, 300))
    write_confusion(directory.evaluation / FILE, confusion_of({"student": counts, "teacher": counts}, ["x" * 99] * 300))
    page = _page(directory)
    assert len(page.pictures()) == 8
    assert len(page.content) < 2e6


def test_files_that_are_no_pictures_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = _run(tmp_path)
    directory.figures.mkdir()
    (directory.figures / "pseudo_images_00000001.png").write_bytes(b"a secret")
    (directory.figures / "pseudo_images_00000002.png").write_bytes(png(np.zeros((5000, 5000), np.uint8)))
    (directory.figures / "pseudo_images_00000003.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    (directory.figures / "pseudo_images_x.png").write_bytes(b"")
    assert len(_page(directory).pictures()) == 1
    assert "pseudo_images_00000001.png: UnidentifiedImageError" in caplog.text
    assert "pseudo_images_00000002.png: ValueError: it has 5000 x 5000 pixels" in caplog.text


def test_damaged_files_cost_their_section(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = _run(tmp_path)
    directory.evaluation.mkdir()
    directory.estimates.write_text('{"sources": {"yardstick": 3}}')
    (directory.evaluation / FILE).write_bytes(b"no Parquet")
    (directory.evaluation / "evaluation.json").write_text('{"calibration": {"student": {"ece": 0.5}}}')
    directory.history.write_bytes(b"no Parquet")
    (directory.path / "export").mkdir()
    (directory.path / "export/export.json").write_text('{"files": 3, "networks": {}, "threads": 1}')
    page = _page(directory)
    assert {"Estimates without labels", "Exported files"}.isdisjoint(page.headings)
    assert page.row("accuracy, digits") == ["95.00 %", "80.00 %"]
    for problem in ("lacks 'Estimates without labels'", "lacks 'Exported files'", "history.parquet is damaged"):
        assert problem in caplog.text, problem


def test_without_the_packages_there_is_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = _run(tmp_path)
    monkeypatch.setattr(write, "lacking", lambda *_: "needs Matplotlib: pip install 'zskt-dist[report]'")
    assert update_page(directory) is None
    assert not directory.page.exists()


def test_what_is_not_finished_has_none(tmp_path: Path) -> None:
    directory = _run(tmp_path)
    _page(directory)
    config = directory.read_config()
    assert config is not None
    directory.begin("train", config)
    assert not directory.page.exists(), "it told of the run before"
    assert update_page(directory) is None
    _run(tmp_path / "sweep", status="finished")
    (tmp_path / "sweep/digits/run/result.json").write_text('{"status": "finished", "command": "sweep", "trials": 3}')
    assert update_page(RunDirectory(tmp_path / "sweep/digits/run")) is None


@pytest.mark.parametrize("leads_out", [False, True])
def test_report_writes_the_page_of_an_earlier_run(
    tmp_path: Path, leads_out: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = _run(tmp_path / "runs")
    other = finished_run(tmp_path / "runs", "train", 1, 0.8, pair=("lenet-2", "lenet"), dataset="digits", name="other")
    if leads_out:
        (tmp_path / "secret").write_text("{}")
        (directory.path / "evaluation").mkdir()
        (directory.path / "evaluation/evaluation.json").symlink_to(tmp_path / "secret")
    locations = [str(directory.path), str(tmp_path / "runs")]
    assert report.main([*locations, "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0
    assert directory.page.exists() == (f"page: {directory.page}" in capsys.readouterr().out) == (not leads_out)
    assert ("is a link out of the run" in caplog.text) == leads_out
    assert not (other / "index.html").exists(), "it was not named itself"
