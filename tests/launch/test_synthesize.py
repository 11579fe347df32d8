"""`synthesize` as a command: what it writes, says and refuses; and a student that learns from it."""

import json
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.support import commands
from tests.support.configs import TINY
from tests.support.results import check_result
from zskt_dist.commands import shared as cli
from zskt_dist.commands import synthesize
from zskt_dist.config import dump_yaml, load_config

TRAIN = [*TINY, "iterations=4", "supervised.iterations=12", "tracking.images=0", "name=run", "evaluation.every=0"]
TRAIN += ["checkpoint.every=0", "evaluation.snapshots=2"]
RUN = "runs/digits/run"
FEW = ["--images", "30", "--shard-images", "16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.training_command("train", "", TRAIN) == 0
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_the_result_says_what_is_in_the_shards(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert synthesize.main([RUN, *FEW, "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    shards = sorted(Path(RUN, "pseudo_data").glob("*.parquet"))
    assert [path.name for path in shards] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    labels = pq.read_table(shards)["label"].to_pylist()
    assert result["classes"] == [labels.count(label) for label in range(10)]
    assert result["bytes"] == sum(path.stat().st_size for path in shards)
    check_result(result)
    assert (result["status"], result["command"]) == ("finished", "synthesize")
    assert (result["images"], result["shards"]) == (30, 2)
    assert list(result["generators"]) == ["2", "4"]
    printed = capsys.readouterr().out
    assert "30 pseudo-images in 2 shard(s)" in printed
    assert f"pseudo_data={Path(RUN, 'pseudo_data').absolute()} loss.beta=0" in printed


def test_the_card_has_front_matter_that_names_the_shards(tmp_path: Path) -> None:
    assert synthesize.main([RUN, *FEW, "--out", str(tmp_path)]) == 0
    _, front, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    (config,) = yaml.safe_load(front)["configs"]
    assert config["data_files"] == [{"split": "train", "path": "train-*.parquet"}]
    for name in pq.read_schema(tmp_path / "train-00000-of-00002.parquet").names:
        assert f"| `{name}` |" in text


def test_hugging_face_opens_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its card and the file beside it; one shard, which is as many as there are JSON files."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed (extra dev)")
    assert synthesize.main([RUN, "--images", "10", "--out", str(tmp_path / "out")]) == 0
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["index"][:] == list(range(10))
    assert loaded[0]["image"].mode == "L"


def test_a_student_learns_from_the_shards(tmp_path: Path) -> None:
    out = str(tmp_path / "data")
    assert synthesize.main([RUN, *FEW, "--out", out, "--sources", "last"]) == 0
    arguments = [*TRAIN, "name=student", f"pseudo_data={out}", "loss.beta=0", f"runs_dir={tmp_path}"]
    assert cli.training_command("train", "", [*arguments, "--dry-run"]) == 0
    assert cli.training_command("train", "", arguments) == 0
    assert json.loads((tmp_path / "digits/student/result.json").read_text())["student"]["sha256"]
    assert synthesize.main([str(tmp_path / "digits/student")]) == 2, "it has no generator"


def test_what_an_inversion_made_says_so_and_the_printed_command_learns_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the configuration of the run, whose method is inversion."""
    images, run, out = tmp_path / "mine", tmp_path / "digits/run", tmp_path / "data"
    images.mkdir()
    Image.new("L", (8, 8), 70).save(images / "1.png")
    small = ["inversion.rounds=2", "inversion.warm_up=1", "inversion.images=4", f"inversion.seed_images={images}"]
    assert cli.training_command("train", "", [*TRAIN, *small, "method=inversion", f"runs_dir={tmp_path}"]) == 0
    capsys.readouterr()
    assert synthesize.main([str(run), "--out", str(out), "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    check_result(result)
    assert result["method"] == "inversion"
    assert result["seed_images"] == json.loads((run / "result.json").read_text())["seed_images"]
    (learn,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("learn "))
    words = shlex.split(learn)[5:]
    assert words[0] == "…", "the configuration"
    assert cli.training_command("train", "", ["--config", str(run / "config.yaml"), *words[1:], "name=again"]) == 0


def test_the_plan_names_the_shards_and_no_teacher(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthesize.main([RUN, *FEW, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    arguments = [*TRAIN, "name=s", f"pseudo_data={tmp_path}", "loss.beta=0", "--dry-run"]
    assert cli.training_command("train", "", arguments) == 0
    plan = capsys.readouterr().out.split("Plan of train")[1]
    assert "│ pseudo-data" in plan
    assert "30 images" in plan
    assert "│ teacher" not in plan
    assert "│ generator" not in plan
    assert "ready: configuration" in plan


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no finished run; synthesize takes a folder with a result.json, runs/EXP"),
        ([RUN, "--images", "0"], "--images=0: expected greater than 0"),
        ([RUN, "--sources", "2,3"], "--sources='2,3': expected all, last, or some of 2,4"),
        ([RUN, "--sources", "newest"], "--sources='newest': expected all, last, or some of 2,4"),
        ([RUN, "loss.beta=3"], "loss.beta='3': belongs to the run; synthesize takes launch, device and teacher.checkp"),
        ([RUN, "launch.kind=ray"], "launch.kind='ray': synthesize runs on this machine; use --workers"),
        ([RUN, "--out", "s3://bucket/x"], "--out='s3://bucket/x': expected a folder of this machine"),
        ([RUN, "--out", f"{RUN}/config.yaml", "--workers", "2"], f"--out='{RUN}/config.yaml': is a file; expected a f"),
        ([RUN, "teacher.checkpoint=gone.safetensors"], "teacher.checkpoint='"),
        (["teacher"], "teacher is a run of pretrain, which has no generator; use one of train"),
        (["seeds"], "seeds holds the mean of several seeds, and no network; synthesize one of "),
        (["unwatched"], "RUN_DIR='"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {"teacher": {"command": "pretrain"}, "seeds": {"command": "train", "seeds": [0], "runs": ["a"]}}
    for name, result in {**results, "unwatched": {"command": "train"}}.items():
        Path(name).mkdir(exist_ok=True)
        Path(name, "result.json").write_text(json.dumps({"status": "finished", **result}))
        Path(name, "config.yaml").write_text(dump_yaml(load_config(None, ["teacher.checkpoint=t.safetensors"])))
    capsys.readouterr()
    assert synthesize.main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {said}")
    assert printed.count("\n") == 1


def test_the_advice_for_a_run_without_snapshots_works(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`evaluation.snapshots` is no part of a run's identity: the same command answers with the run as it is."""
    arguments = [*TRAIN, f"runs_dir={tmp_path}", "evaluation.snapshots=0"]
    assert cli.training_command("train", "", arguments) == 0
    capsys.readouterr()
    assert synthesize.main([str(tmp_path / "digits/run"), *FEW]) == 2
    said = capsys.readouterr().err
    for word in ("evaluation.snapshots=5", "--fresh"):
        assert word in said
        arguments.append(word)
    assert cli.training_command("train", "", arguments) == 0
    assert synthesize.main([str(tmp_path / "digits/run"), *FEW]) == 0


@pytest.mark.slow
def test_two_processes_make_what_one_does_after_a_kill(folder: Path, tmp_path: Path) -> None:
    """The first two are killed once there is a shard."""
    arguments = (RUN, "--images", "1200", "--shard-images", "40", "--out")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = commands.command("synthesize", *arguments, str(killed), "--workers", "2", folder=folder)
    commands.wait_until(lambda: any(killed.glob("*.parquet")), process)
    commands.kill_group(process)
    process.communicate()
    there = {path.name: path.stat().st_mtime_ns for path in killed.glob("*.parquet")}
    assert 0 < len(there) < 30
    assert commands.run("synthesize", *arguments, str(killed), "--workers", "2", folder=folder)[0] == 0
    assert commands.run("synthesize", *arguments, str(whole), folder=folder)[0] == 0
    files = [{path.name: path.read_bytes() for path in out.glob("*.parquet")} for out in (whole, killed)]
    assert files[0] == files[1]
    assert len(files[0]) == 30
    assert all((killed / name).stat().st_mtime_ns == moment for name, moment in there.items()), "what stood was kept"
