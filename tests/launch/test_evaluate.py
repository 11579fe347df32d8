"""`evaluate` as a command: killed after measuring, measured again otherwise, with other teachers, data and workers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from rich.console import Console
from safetensors.torch import load_file, save_file

from tests.support.configs import TINY
from tests.support.images import png, write_parquet
from tests.support.results import check_result
from tests.support.stores import new_store
from zskt_dist.commands import evaluate
from zskt_dist.commands import shared as cli
from zskt_dist.data.digits import read_digits
from zskt_dist.errors import Interrupted
from zskt_dist.evaluation.curves import CurveParts
from zskt_dist.evaluation.run_evaluation import RunEvaluation, _warn_of_absent_classes
from zskt_dist.launch import driver
from zskt_dist.launch import evaluate as measure
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.sums import write_recorded

TRAIN = [*TINY, "iterations=4", "supervised.iterations=300", "tracking.images=0", "name=run"]
TRAIN += ["evaluation.every=0", "checkpoint.every=0", "evaluation.snapshots=0"]
MEASURE = ["transitions.images=9", "transitions.steps=3", "transitions.rows=9", "evaluation.noise_images=10"]
RUN = Path("runs/digits/run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.training_command("train", "", TRAIN) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A copy of the run, in a folder that is the current one."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return RunDirectory(tmp_path / RUN)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def _mte(run: RunDirectory) -> float:
    return float(_read(run.result)["mte"]["value"])


def _other_teacher(run: RunDirectory, folder: Path, *, roll: int = 0) -> Path:
    """The run's teacher, a bit surer of itself, with its classes in another order."""
    (weights,) = (folder / "runs/teachers").glob("*/teacher.safetensors")
    tensors = load_file(weights)
    last = list(tensors)[-1].rpartition(".")[0]
    changed = {name: tensors[name].mul(1.5).roll(roll, 0) for name in (f"{last}.weight", f"{last}.bias")}
    save_file(tensors | changed, folder / "other.safetensors")
    return folder / "other.safetensors"


@pytest.mark.rendered
def test_a_command_killed_after_measuring_is_completed_by_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    assert cli.training_command("train", "", [*TRAIN, f"tracking.uri={store}"]) == 0
    run = RunDirectory(tmp_path / RUN)

    def killed(directory: RunDirectory) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_draw", killed)
        assert evaluate.main([str(RUN), *MEASURE]) == 130
    run.finish(_read(run.result) | {"mte": None})  # killed yet earlier, between the two files
    measured = run.evaluation / "evaluation.json"
    first = measured.stat()
    assert evaluate.main([str(RUN), *MEASURE]) == 0
    assert measured.stat() == first, "nothing was to be measured again"
    assert _mte(run) == _read(measured)["mte"]["value"]
    assert (run.figures / "transition_curves.png").exists()
    address = _read(run.tracking)
    metrics = MlflowClient(tracking_uri=store).get_run(address["run_id"]).data.metrics
    assert metrics["test/mte"] == _mte(run)
    told = (run.finished() or {})["estimates"]["sources"]
    assert {f"estimate/{source}_{name}" for source, entry in told.items() for name in entry} <= set(metrics)
    assert metrics["estimate/held_out_kl_95"] == told["held_out"]["kl_95"]
    assert address["complete"]


def test_mlflow_shows_what_was_measured_last_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = new_store(tmp_path)
    assert cli.training_command("train", "", [*TRAIN, f"tracking.uri={store}", "seeds=[0,1]", "teacher.seed=0"]) == 0
    client, values = MlflowClient(tracking_uri=store), []
    for step_size in (1, 40):
        assert evaluate.main([str(RUN), *MEASURE, f"transitions.step_size={step_size}"]) == 0
        for name in ("run", "run-seed0"):
            result = _read(RUN.with_name(name) / "result.json")
            metrics = client.get_run(result["mlflow"]["run_id"]).data.metrics
            assert metrics["test/mte"] == result["mte"]["value"]
            check_result(result)
            assert metrics["test/accuracy"] == result["student"]["accuracy_last"]
            values.append(result["mte"]["value"])
    assert len(set(values)) == 4


def test_another_teacher_is_measured_and_leaves_the_run_its_own_mte(run: RunDirectory, tmp_path: Path) -> None:
    assert evaluate.main([str(run.path), *MEASURE]) == 0
    result, answer = _read(run.result), _read(run.evaluation / "evaluation.json")
    other = _other_teacher(run, tmp_path, roll=1)
    arguments = [str(run.path), *MEASURE, f"teacher.checkpoint={other}", "--json", str(tmp_path / "other.json")]
    for _ in range(2):
        assert evaluate.main(arguments) == 0
        check_result(_read(tmp_path / "other.json"))
        told = _read(tmp_path / "other.json")["evaluation"]
        assert told["teacher_accuracy"] < 0.5 < answer["teacher_accuracy"]
    assert _read(run.result) == result
    assert _read(run.evaluation / "evaluation.json") == answer


def test_other_data_leave_the_run_its_own_mte(run: RunDirectory, tmp_path: Path) -> None:
    assert evaluate.main([str(run.path), *MEASURE]) == 0
    result = _read(run.result)
    assert result["mte"]["dataset"] == "digits"
    pixels = [png(image[0].numpy()) for image in read_digits("test").images[:50]]
    write_parquet(tmp_path / "other/test-0.parquet", pixels, list(range(10)) * 5)
    other = ["data.name=parquet", f"data.root={tmp_path / 'other'}"]
    assert evaluate.main([str(run.path), *MEASURE, *other]) == 0, "normalised as the networks were trained"
    assert _read(run.result) == result
    (answer,) = run.evaluation.glob("other-*/evaluation.json")
    assert _read(answer)["images"] == 50


def test_images_are_not_normalised_in_another_way_than_in_training(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(run.path), *MEASURE, "data.mean=[0.9]", "data.std=[0.2]"]) == 2
    said = capsys.readouterr().err
    assert "data.mean=[0.9] data.std=[0.2]" in said
    assert "was trained with data.mean=[0.3054] data.std=[0.376]" in said


def _interrupted(run: RunDirectory, *overrides: str) -> None:
    """An evaluation that is stopped after its first part."""
    with pytest.MonkeyPatch.context() as patch:
        write = CurveParts._write

        def note(parts: CurveParts, number: int, curves: Any) -> None:
            write(parts, number, curves)
            run.stop.touch()

        patch.setattr(CurveParts, "_write", note)
        patch.setattr("zskt_dist.distributed.stop_vote._FILE_POLL_SECONDS", 0.0)
        with pytest.raises(Interrupted):
            measure.evaluate_run(run.location, [*MEASURE, *overrides], fresh=False, console=Console(quiet=True))


def _parts_written(patch: pytest.MonkeyPatch) -> list[int]:
    written: list[int] = []
    write = CurveParts._write

    def note(parts: CurveParts, number: int, curves: Any) -> None:
        write(parts, number, curves)
        written.append(number)

    patch.setattr(CurveParts, "_write", note)
    return written


@pytest.mark.parametrize("change", ["nothing", "teacher", "fresh", "positions"])
def test_parts_are_used_again_only_where_they_are_of_the_same_curves(
    change: str, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(run)
    written = _parts_written(monkeypatch)
    if change == "teacher":  # other weights in the same file
        weights = Path(run.teacher_weights() or "")
        kept = weights.read_bytes()
        write_recorded(weights, _other_teacher(run, tmp_path).read_bytes())
    if change == "positions":  # another device may decide otherwise where two classes are nearly equal
        scores = RunEvaluation._scores

        def shifted(evaluation: RunEvaluation) -> Any:
            answer, classes = scores(evaluation)
            classes["student"][:60] = (classes["teacher"][:60] + 1) % 10
            return answer, classes

        monkeypatch.setattr(RunEvaluation, "_scores", shifted)
    try:
        assert evaluate.main([str(run.path), *MEASURE, *(["--fresh"] if change == "fresh" else [])]) == 0
    finally:
        if change == "teacher":
            write_recorded(weights, kept)
    assert written == list(range(1 if change == "nothing" else 0, 9))


def test_any_number_of_workers_may_measure(run: RunDirectory) -> None:
    """Also three, which share the run's batches of 8, 16 and 128 images unevenly."""
    assert measure.measured_config(run, ["launch.workers=3"]).launch.workers == 3


def test_a_split_sorted_by_class_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_absent_classes(np.array([0, 1, 2, 0, 1]), 3)
    assert not caplog.text
    _warn_of_absent_classes(np.array([0, 0, 1, 1, 2]), 2)
    assert "transitions.images=2: the first 2 agreed test images lack 2 classes that the others have" in caplog.text
