"""Commands on runs in an object store: every machine continues, answers, measures and reports them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import command, finish, kill_group, wait_until
from tests.support.configs import TINY, tiny_config
from tests.support.distributed import Ranks
from tests.support.object_store import ENVIRONMENT, ObjectStore
from tests.support.stores import new_store
from zskt_dist.commands import evaluate, replay, synthesize
from zskt_dist.commands import shared as cli
from zskt_dist.distributed.world import World
from zskt_dist.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, Interrupted
from zskt_dist.launch import local
from zskt_dist.report import __main__ as report
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import join
from zskt_dist.runs.mirror import Mirror
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

RUN = [*TINY, "name=run", "launch.kind=local"]


def _train(runs: str | Path, *more: str, verb: str = "train") -> int:
    return cli.training_command(verb, "", [*RUN, f"runs_dir={runs}", *more])


_save = CheckpointStore.save


def _save_and_ask_to_stop(store: CheckpointStore, iteration: int, state: Any) -> Path:
    path = _save(store, iteration, state)
    if store.folder.parent.name == "run":
        (store.folder.parent / "stop").touch()
    return path


def _sha256(result: Any) -> str:
    return str(result["student"]["sha256"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the same run in a plain folder."""
    folder = tmp_path_factory.mktemp("plain")
    assert _train(folder / "runs", "--json", str(folder / "result.json")) == 0
    assert not list(folder.rglob(".mirror*"))
    return dict(json.loads((folder / "result.json").read_text()))


@pytest.mark.rendered
def test_interrupted_and_continued_on_another_machine(
    object_store: ObjectStore, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", _save_and_ask_to_stop)
        patch.setattr("zskt_dist.distributed.stop_vote._FILE_POLL_SECONDS", 0.0)
        assert _train(object_store.uri()) == EXIT_INTERRUPTED
    shutil.rmtree(object_store.move_to("there"), ignore_errors=True)
    assert _train(object_store.uri(), "--json", str(tmp_path / "a.json")) == 0
    result = json.loads((tmp_path / "a.json").read_text())
    assert _sha256(result) == _sha256(uninterrupted)
    assert 3 <= result["resumed_from"] < 10
    assert len([name for name in object_store.names() if name.startswith("runs/digits/run/checkpoints/")]) == 2
    assert {"runs/digits/run/result.json", "runs/digits/run/figures/training.png"} < set(object_store.names())

    object_store.move_to("third")

    def unexpected(_: Job) -> None:
        raise AssertionError("a finished run was started")

    monkeypatch.setattr(local, "launch", unexpected)
    before = object_store.files()
    assert _train(object_store.uri(), "--json", str(tmp_path / "b.json")) == 0
    assert json.loads((tmp_path / "b.json").read_text()) == result
    assert object_store.files() == before


def test_killed_and_continued_without_its_working_copy(
    object_store: ObjectStore, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    machine = object_store.move_to("killed")
    arguments = [*RUN, f"runs_dir={object_store.uri()}", "checkpoint.every=1"]
    process = command("train", *arguments, folder=tmp_path, environment={**ENVIRONMENT, "ZSKT_CACHE": str(machine)})
    wait_until(lambda: any(name.startswith("runs/digits/run/checkpoints/") for name in object_store.names()), process)
    kill_group(process)
    finish(process)
    shutil.rmtree(machine)
    assert _train(object_store.uri(), "--json", str(tmp_path / "result.json")) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["resumed_from"]
    assert _sha256(result) == _sha256(uninterrupted)


def test_an_outage_delays_the_upload_and_not_the_training(
    object_store: ObjectStore,
    uninterrupted: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The store goes away with the student's first checkpoint and is back for the repeated command only."""
    save, upload, down = CheckpointStore.save, Mirror.send, []

    def cut(store: CheckpointStore, iteration: int, state: Any) -> Path:
        if store.folder.parent.name == "run":
            down.append(iteration)
        return save(store, iteration, state)

    def refuse(mirror: Mirror, name: str) -> None:
        if down:
            raise OSError("out of order")
        upload(mirror, name)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", cut)
        patch.setattr(Mirror, "send", refuse)
        assert _train(object_store.uri()) == EXIT_USER_ERROR
    assert down == [3, 6, 9, 10], "it trained to the end"
    assert "out of order" in caplog.text
    directory = RunDirectory(join(object_store.uri(), "digits", "run"))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(directory.path) in error
    assert "the same command" in error
    assert "runs/digits/run/result.json" not in object_store.names()

    assert _train(object_store.uri()) == 0
    object_store.move_to("there")
    directory = RunDirectory(directory.location)
    directory.mirror.pull()
    result = directory.finished()
    assert _sha256(result) == _sha256(uninterrupted)
    latest = CheckpointStore(directory.checkpoints).latest()
    assert latest is not None
    assert latest.iteration == 10


def test_a_finished_run_is_measured_replayed_and_reported_elsewhere(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow = new_store(tmp_path)
    assert (
        _train(object_store.uri(), "seeds=[0,1]", "iterations=2", "supervised.iterations=2", "evaluation.every=0") == 0
    )
    run = join(object_store.uri(), "digits", "run")
    object_store.move_to("there")
    measure = ["transitions.images=4", "transitions.steps=2", "evaluation.noise_images=8"]
    measure += ["evaluation.held_out_images=32"]
    assert evaluate.main([run, *measure]) == 0
    object_store.move_to("third")
    assert replay.main([join(object_store.uri(), "digits", "run-seed0"), "--uri", mlflow]) == 0
    cache = object_store.move_to("fourth")
    for place in (object_store.uri(), run):
        assert report.main([place, "--out", "out", "--no-mlflow"]) == 0
        table = (tmp_path / "out/report.md").read_text()
        assert "| digits | zero-shot | lenet → lenet | 2 |" in table
    assert not list(cache.rglob("*.pt"))
    files = object_store.files()
    result = json.loads(files["runs/digits/run/result.json"])
    assert result["mte"]
    assert result["estimates"]["sources"]["noise"]["images"] == 32, "as measured last"
    assert json.loads(files["runs/digits/run-seed0/mlflow.json"])["complete"]
    assert report.main([object_store.uri("none"), "--no-mlflow"]) == EXIT_USER_ERROR
    assert evaluate.main([join(object_store.uri(), "digits", "none")]) == EXIT_USER_ERROR


def test_pseudo_data_of_a_store_travels_to_those_who_make_more_of_it(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["iterations=2", "supervised.iterations=2", "evaluation.every=0", "evaluation.snapshots=1"]
    assert _train(object_store.uri(), *few) == 0
    run = join(object_store.uri(), "digits", "run")
    make = [run, "--images", "20", "--shard-images", "10"]
    assert synthesize.main(make) == 0
    assert "runs/digits/run/pseudo_data/train-00001-of-00002.parquet" in object_store.names()
    there = object_store.move_to("there")
    assert evaluate.main([run, "transitions.images=4", "transitions.steps=2", "evaluation.noise_images=8"]) == 0
    assert not list(there.rglob("train-*.parquet"))
    monkeypatch.setattr("zskt_dist.tasks.synthesize.write_shard", None)  # whole shards are kept
    assert synthesize.main(make) == 0
    assert len(list(there.rglob("train-*.parquet"))) == 2


def test_starting_over_keeps_the_earlier_run_in_the_store(object_store: ObjectStore) -> None:
    short = ["iterations=2", "supervised.iterations=2"]
    assert _train(object_store.uri(), *short) == 0
    object_store.move_to("there")
    assert _train(object_store.uri(), *short, "--fresh") == 0
    results = [name for name in object_store.names() if name.startswith("runs/digits") and name.endswith("result.json")]
    assert len(results) == 2
    assert results[0].startswith("runs/digits/run.before-")


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ("ftp://host/runs", "s3://bucket/folder"),
        ("s3://no-such-bucket/runs", "there is no bucket 'no-such-bucket'"),
        ("s3://key:secret@bucket/runs", "password"),
    ],
)
def test_uris_that_cannot_work(
    object_store: ObjectStore, runs: str, problem: str, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if runs.startswith("s3://no"):
        runs = object_store.uri(bucket="no-such-bucket")
    code = _train(runs, *(["--dry-run"] if dry else []))
    printed = capsys.readouterr()
    assert code == EXIT_USER_ERROR
    assert printed.err.startswith("error: runs_dir=")
    assert problem in printed.err
    assert printed.err.count("\n") == 1
    assert "secret" not in printed.err


def _on_its_own_machine(world: World, folder: Path, runs: str, stop: bool) -> dict[str, Any] | None:
    """A rank whose machine shares nothing with the other's but the store; asked to `stop` at a student's checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("ZSKT_CACHE", str(folder / f"machine{world.rank}"))
        if stop:
            patch.setattr(CheckpointStore, "save", _save_and_ask_to_stop)
            patch.setattr("zskt_dist.distributed.stop_vote._FILE_POLL_SECONDS", 0.0)
        job = Job.plan("train", tiny_config(folder, "name=run", f"runs_dir={runs}"))
        directory = job.directory
        try:
            Worker(job, world).run()
        except Interrupted:
            assert stop
            return None
        return directory.finished()


def test_only_rank_0_sees_the_files(object_store: ObjectStore, two_ranks: Ranks, tmp_path: Path) -> None:
    plain, _ = two_ranks.run(_on_its_own_machine, tmp_path / "a", tmp_path / "a/runs", False)
    assert two_ranks.run(_on_its_own_machine, tmp_path / "b", object_store.uri(), True) == [None, None]
    shutil.rmtree(tmp_path / "b")
    result, nothing = two_ranks.run(_on_its_own_machine, tmp_path / "b", object_store.uri(), False)
    assert nothing is None
    assert not (tmp_path / "b/machine1").exists()
    assert result["resumed_from"]
    assert _sha256(result) == _sha256(plain)
