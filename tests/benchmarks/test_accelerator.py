"""The accelerator suite at toy size on CPU, where nothing is installed that its machine does not have."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import accelerator
from benchmarks.on_device import parcel, training
from tests.support.commands import REPOSITORY
from zskt_dist.networks.weights import read_weights

ABSENT = ["ray", "mlflow", "deepspeed", "rich", "pandas", "matplotlib", "torchvision", "sklearn", "scipy"]
BLOCKER = f"""
from importlib.machinery import PathFinder

found = PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT} else found(name, path, target)


PathFinder.find_spec = staticmethod(find_spec)  # dill asks an instance
"""
PAIR = "wrn-10-1 -> wrn-10-1"


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(BLOCKER)
    paths = os.pathsep.join([str(folder / "site"), str(REPOSITORY)])
    command = [sys.executable, "-m", "benchmarks.accelerator", *arguments]
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _stages(out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    return json.loads((out / "accelerator.json").read_text())["stages"]


def test_it_starts_with_little_installed(tmp_path: Path) -> None:
    answer = _run(tmp_path, "--help")
    assert answer.returncode == 0, answer.stderr
    assert "--resume FOLDER" in answer.stdout


@pytest.mark.slow
def test_all_stages(tmp_path: Path) -> None:
    answer = _run(tmp_path, *accelerator.STAGES, "--toy", "--out", "out", "--minutes", "9")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    stages = _stages(tmp_path / "out")
    assert list(stages) == list(accelerator.STAGES)
    assert {entry["status"] for stage in stages.values() for entry in stage.values()} == {"done", "skipped"}
    assert stages["check"]["all post_update float64"]["largest_difference"] < 1e-6
    assert set(stages["iteration"]["peaks"]["tf32"]) == {"matrix_product_gflops", "convolution_gflops"}
    assert stages["iteration"][PAIR]["ratio_post_update"] > 0
    assert stages["transitions"]["128 rows"]["ratio"] > 0
    assert stages["memory"][f"{PAIR}, 16 px, plain"]["peak_bytes"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_every_fast_path_on_the_device(tmp_path: Path) -> None:
    assert accelerator.main(["check", "--toy", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 0
    checks = _stages(tmp_path / "out")["check"]
    assert {name: entry for name, entry in checks.items() if entry["status"] != "done"} == {}


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


@pytest.mark.usefixtures("one_thread")
def test_a_deadline_stops_and_another_machine_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(number: int, stages: list[str], minutes: str, *more: str) -> dict[str, dict[str, dict[str, Any]]]:
        folders = ["--out", str(tmp_path / f"out{number}"), "--work", str(tmp_path / f"work{number}")]
        # A stop while a yardstick is made would come before the first iteration.
        quick = ["--set", "evaluation.yardstick=false"]
        codes.append(accelerator.main([*stages, "--toy", *folders, *quick, "--minutes", minutes, *more]))
        return _stages(tmp_path / f"out{number}")

    codes: list[int] = []
    made = call(1, ["teachers"], "9")["teachers"]["wrn-10-1"]
    assert (made["file"], made["iterations"]) == ("wrn-10-1.safetensors", 8)
    # The deadline comes while the run is being set up, so the first iteration is the last.
    with monkeypatch.context() as patch:
        asked = training._asked_to_stop
        patch.setattr(training, "_asked_to_stop", lambda directory, seconds: asked(directory, seconds - 60))
        stopped = call(2, ["teachers", "pairs"], "1", "--resume", str(tmp_path / "out1"))["pairs"][PAIR]
    assert (stopped["status"], stopped["iterations"]) == ("interrupted", 40)
    last = call(3, ["teachers", "pairs"], "9", "--resume", str(tmp_path / "out2"))
    assert codes == [0, 143, 0]
    assert last["teachers"]["wrn-10-1"] == made
    assert last["pairs"][PAIR]["resumed_from"] == stopped["iteration"] < 40
    assert [row["iteration"] for row in last["pairs"][PAIR]["history"]][-1] == 40


@pytest.mark.usefixtures("one_thread")
def test_a_teacher_is_rounded_and_still_loads(tmp_path: Path) -> None:
    accelerator.main(["teachers", "--toy", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")])
    weights = read_weights(tmp_path / "out" / "wrn-10-1.safetensors", "teacher.checkpoint")
    assert {tensor.dtype for tensor in weights.values() if tensor.ndim > 1} == {torch.float16}
    assert {tensor.dtype for tensor in weights.values() if tensor.ndim == 1} == {torch.float32}


def test_missing_shards_are_waited_for(tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--data", str(tmp_path)]
    assert accelerator.main(["teachers", *options]) == 143
    entry = _stages(tmp_path / "out")["teachers"]["wrn-40-2"]
    assert entry == {"status": "waiting", "message": "0 of 50000 train images are in the data folder"}


def test_a_shard_on_its_way_is_waited_for(tmp_path: Path) -> None:
    """Cut off anywhere, as a copy under way is; and empty, as it begins."""
    training.toy_data(tmp_path)
    whole = next(tmp_path.glob("train-*.parquet"))
    (tmp_path / "train-00001-of-00002.parquet").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "train-00002-of-00002.parquet").touch()
    options = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--data", str(tmp_path)]
    assert accelerator.main(["teachers", *options]) == 143
    entry = _stages(tmp_path / "out")["teachers"]["wrn-40-2"]
    assert entry["message"] == "40 of 50000 train images are in the data folder"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "mistyped"], "error: --resume=mistyped: has no readable accelerator.json"),
        (["--set", "optimizer.student_rate=1"], "error: optimizer.student_rate"),
        (["--set", "iterations=many"], "error: iterations='many'"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    options = ["--toy", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert accelerator.main(["pairs", *options, *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_no_time_at_all_leaves_a_report(tmp_path: Path) -> None:
    options = ["--toy", "--out", str(tmp_path / "new" / "out"), "--work", str(tmp_path / "work"), "--minutes", "0"]
    assert accelerator.main(["check", *options]) == 143
    assert _stages(tmp_path / "new" / "out") == {}


def test_a_parcel_is_cut_and_joined(tmp_path: Path) -> None:
    """What does not fit is named; a finished run's checkpoints stay behind."""
    for name, status in (("done", "finished"), ("begun", None)):
        folder = tmp_path / "work" / "runs" / "pair" / name
        folder.mkdir(parents=True)
        (folder / "command.json").write_text("{}")
        (folder / "student.safetensors").write_bytes(bytes(20_000))
        if status:
            (folder / "result.json").write_text(json.dumps({"status": status}))
    (tmp_path / "out").mkdir()
    assert parcel.pack(tmp_path / "work", tmp_path / "out", part_bytes=16_000, parts=3) == [
        "runs/pair/done/student.safetensors"
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"state-{n}.part" for n in range(2)]
    parcel.unpack(tmp_path / "out", tmp_path / "again")
    found = sorted(
        str(path.relative_to(tmp_path / "again" / "runs" / "pair")) for path in tmp_path.rglob("again/**/*.*")
    )
    assert found == ["begun/command.json", "begun/student.safetensors", "done/command.json", "done/result.json"]
