"""Transfer by inversion: one worker and two, interrupted in every phase of a round, its pool and its files."""

import errno
import importlib.util
import os
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from tests.support.inversions import ALONE, SHAPE, inversion_config, inversion_training
from tests.support.jobs import train_in
from tests.support.object_store import ObjectStore
from zskt_dist.algorithms.inversion import Inverter
from zskt_dist.commands import synthesize
from zskt_dist.data.pool import VIEW_BYTES, PoolFiles, pool_files
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.distributed import stop_vote
from zskt_dist.distributed.world import World
from zskt_dist.engine.building import placed_teacher
from zskt_dist.errors import ConfigError, Interrupted, UserError
from zskt_dist.models import build_network
from zskt_dist.runs import sums
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.stages import identity
from zskt_dist.tracking.local import read_history
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Loop
from zskt_dist.training.worker import Worker


def _steps(world: World, folder: Path, *overrides: str) -> dict[str, Tensor]:
    """Parameters after all float64 steps, the pool, and the metrics on the way."""
    config = inversion_config(folder, *overrides)
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zskt_dist.algorithms.inversion.normal", lambda rng, *shape: rng.standard_normal(shape))
            task = inversion_training(config, world)
            numbers = []
            for iteration in range(config.iterations):
                metrics = world.mean(task.step(iteration), task.weight)
                numbers.append([metrics[name][0] for name in ("kl", "synthesis_loss", "synthesis_agreement")])
    finally:
        torch.set_default_dtype(torch.float32)
    with task.trained() as network:
        reported = torch.tensor(numbers, dtype=torch.float64)
        return {**network.state_dict(), "reported": reported, "pool": task.pool.newest()}


@pytest.mark.parametrize("overrides", [(), ("batch_size=7", "inversion.views=3"), ("engine.micro_batch=2",)])
def test_one_worker_and_two_do_the_same(two_ranks: Ranks, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """Three parts are not shared out evenly; the student has no batch norm."""
    alone = _steps(ALONE, tmp_path, "student.arch=lenet", *overrides)
    assert len(alone["pool"]) == 3 * 2 * 7, "of both steps"
    for of_rank in two_ranks.run(_steps, tmp_path, "student.arch=lenet", *overrides):
        assert torch.equal(alone["pool"], of_rank["pool"])
        for name, expected in alone.items():
            torch.testing.assert_close(of_rank[name], expected, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_on_two_workers_learns_as_ddp_does(two_ranks: Ranks, tmp_path: Path, stage: int) -> None:
    """In float32: what the student is during synthesis, with its parts gathered, decides about the images, too."""
    zero = ("engine.kind=deepspeed", f"engine.zero_stage={stage}")
    ddp, _ = two_ranks.run(_learnt, tmp_path, "student.arch=lenet")
    for of_rank in two_ranks.run(_learnt, tmp_path, "student.arch=lenet", *zero):
        assert (of_rank["pool"].int() - ddp["pool"].int()).abs().max() <= 1
        for name, expected in ddp.items():
            torch.testing.assert_close(
                of_rank[name].float(), expected.float(), rtol=1e-3, atol=1.01 if name == "pool" else 1e-4, msg=name
            )


def _learnt(world: World, folder: Path, *overrides: str) -> dict[str, Tensor]:
    task = inversion_training(inversion_config(folder, *overrides), world)
    for iteration in range(task.iterations):
        task.step(iteration)
    with task.trained() as network:
        return {**{name: value.clone() for name, value in network.state_dict().items()}, "pool": task.pool.newest()}


@pytest.mark.parametrize("override", ["speed.precision=bfloat16", "engine.teacher=bfloat16"])
def test_in_bfloat16_the_first_loss_is_nearly_the_same(tmp_path: Path, override: str) -> None:
    """Of images made with 8 bits of precision, by a student that has learnt nothing yet."""
    losses = []
    for overrides in ((), (override,)):
        config = inversion_config(tmp_path, *overrides)
        task = inversion_training(config)
        task._teacher = placed_teacher(config, task._teacher)
        losses.append(task.step(0)["kl"].item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


def test_what_is_learnt_from_lies_in_the_range_of_images(tmp_path: Path) -> None:
    task = inversion_training(inversion_config(tmp_path))
    task.step(0)
    inverter = task.inverter
    x = inverter.generator(torch.randn(50, 8) * 10)
    assert x.min() >= (0 - 0.3) / 0.4
    assert x.max() <= (1 - 0.3) / 0.4
    pixels = (task.pool(0)[0] * 0.4 + 0.3) * 255
    torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)


def test_rounds_are_made_when_their_first_student_step_comes(tmp_path: Path) -> None:
    """Three rounds in eight of ten steps: after none, after one (8 * 2 / 12) and after four (8 * 6 / 12)."""
    task = inversion_training(inversion_config(tmp_path, "iterations=10", "inversion.spread=0.8"))
    sizes = []
    for iteration in range(10):
        task.step(iteration)
        sizes.append(len(task.pool) // 14)
    assert sizes == [1] * 1 + [2] * 3 + [3] * 6


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order."""
    seen: list[str] = []

    def told(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Inverter, "make", told("make", Inverter.make))
    monkeypatch.setattr(PoolFiles, "write", told("write", PoolFiles.write))
    return seen


def _train(folder: Path, *overrides: str) -> dict[str, Any]:
    job = Job.plan("train", inversion_config(folder, "iterations=9", "checkpoint.every=2", *overrides))
    directory = job.directory
    directory.begin("train", job.config, job.goal.inputs.get("teacher"))
    Worker(Job.from_dict(job.to_dict()), ALONE).run()
    return directory.finished() or {}


class _Killed(BaseException):
    """Stands for SIGKILL: nothing is saved on the way out."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    _train(folder)
    return folder


@pytest.mark.parametrize(
    ("method", "call"),
    [
        (f"{Inverter.__module__}.Inverter.make", 1),  # warming up
        (f"{Inverter.__module__}.Inverter.make", 3),  # in the second round
        (f"{PoolFiles.__module__}.PoolFiles.write", 0),  # before the first images are kept
        ("zskt_dist.runs.sums.write_atomic", 7),  # between hash and images, while the third round is written
        (f"{Loop.__module__}.Loop._report", 5),  # among student steps
    ],
)
def test_killed_in_any_phase_and_continued_ends_with_the_same_bits(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    calls = 0
    original: Any = pkgutil.resolve_name(method)

    def killed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += not (isinstance(args[0], Loop) and args[0].training.phase == "teacher")
        if calls > call:
            raise _Killed
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(method, killed)
        with pytest.raises(_Killed):
            _train(tmp_path, "tracking.log_every=1")
    result = _train(tmp_path, "tracking.log_every=1")
    expected = RunDirectory(whole / "runs/digits/run")
    assert result["student"]["sha256"] == (expected.finished() or {})["student"]["sha256"]
    files = [path.name for path in pool_files(expected.pool)]
    assert files == [f"round-{number:05d}.safetensors" for number in range(3)]
    here = tmp_path / "runs/digits/run/pool"
    assert all((here / file).read_bytes() == (expected.pool / file).read_bytes() for file in files)


def test_a_stop_is_heard_while_the_first_images_are_made(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can take an hour before the first iteration; the same command begins again."""
    make, stop = Inverter.make, tmp_path / "runs/digits/run/stop"

    def asked(*args: Any) -> Any:
        stop.touch()
        return make(*args)

    monkeypatch.setattr(stop_vote, "_FILE_POLL_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Inverter, "make", asked)
        with pytest.raises(Interrupted, match="stopped before it began"):
            _train(tmp_path)
    stop.unlink()
    expected = (RunDirectory(whole / "runs/digits/run").finished() or {})["student"]["sha256"]
    assert _train(tmp_path)["student"]["sha256"] == expected


def test_a_full_disk_while_a_round_is_written_is_one_line_and_loses_nothing(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = sums.write_atomic, 0

    def full(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += path.parent.name == "pool"
        if calls == 4:  # a hash goes before each round
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(sums, "write_atomic", full)
        with pytest.raises(UserError, match=r"^a file cannot be written: No space left on device; make room"):
            _train(tmp_path)
    here = RunDirectory(tmp_path / "runs/digits/run")
    assert [path.name for path in here.pool.glob("round-*")] == ["round-00000.safetensors"]
    expected = (RunDirectory(whole / "runs/digits/run").finished() or {})["student"]["sha256"]
    assert _train(tmp_path)["student"]["sha256"] == expected


def test_a_pool_in_a_store_goes_on_on_another_machine(
    tmp_path: Path, whole: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its third round, with nothing left but what the store has."""

    def killed(loop: Loop, done: int, values: dict[str, float]) -> None:
        if loop.training.phase == "student" and done >= 5:
            raise _Killed
        report(loop, done, values)

    report, runs = Loop._report, f"runs_dir={object_store.uri()}"
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", killed)
        with pytest.raises(_Killed):
            _train(tmp_path, runs, "tracking.log_every=1")
    rounds = {name.rpartition("/")[2] for name in object_store.names() if "/pool/" in name}
    assert rounds >= {"round-00000.safetensors", "round-00001.safetensors"}
    object_store.move_to("there")
    result = _train(tmp_path, runs, "tracking.log_every=1")
    assert result["resumed_from"] == 4
    assert (
        result["student"]["sha256"] == (RunDirectory(whole / "runs/digits/run").finished() or {})["student"]["sha256"]
    )


def test_each_round_is_written_once(tmp_path: Path, phases: list[str]) -> None:
    _train(tmp_path)
    assert phases.count("write") == 3
    assert phases.count("make") == 2 + 3


def test_a_damaged_round_is_one_line(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Loop._report

    def killed(loop: Loop, done: int, values: dict[str, float]) -> None:
        if loop.training.phase == "student" and done >= 8:
            raise _Killed
        report(loop, done, values)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", killed)
        with pytest.raises(_Killed):
            _train(tmp_path, "tracking.log_every=1")
    (tmp_path / "runs/digits/run/pool/round-00001.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match=r"round-00001\.safetensors is damaged, .*--fresh"):
        _train(tmp_path, "tracking.log_every=1")


def test_a_pool_at_its_cap_is_restored_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 42 images 20 stay in memory, of 64 bytes with the teacher's answers to two views each; all files stay."""
    monkeypatch.setattr("zskt_dist.tasks.inversion._MIB", 20 * (64 + 2 * (VIEW_BYTES + 10 * 4)))
    task = inversion_training(
        inversion_config(tmp_path, "inversion.pool_mib=1", "inversion.views=2", "iterations=12"),
        folder=tmp_path / "pool",
    )
    for iteration in range(8):
        task.step(iteration)
    again = inversion_training(
        inversion_config(tmp_path, "inversion.pool_mib=1", "inversion.views=2", "iterations=12"),
        folder=tmp_path / "pool",
    )
    again.load(task.state())
    assert len(task.pool) == 20
    assert torch.equal(again.pool.newest(), task.pool.newest())
    assert len(pool_files(tmp_path / "pool")) == 3


def test_history_result_and_identity(whole: Path, tmp_path: Path) -> None:
    directory = RunDirectory(whole / "runs/digits/run")
    result = directory.finished()
    assert result is not None
    assert result["attention"] is None
    assert result["seed_images"] is None
    rows = read_history(directory.history)
    assert {"kl", "statistics_gap", "label_loss", "gap_loss", "synthesis_agreement"} <= set(rows[-1])
    config = inversion_config(tmp_path)
    assert identity("train", config) != identity("train", tiny_config(tmp_path, "name=run"))
    other = inversion_config(tmp_path, "transfer.student_steps=3", "loss.beta=7")
    assert identity("train", other) == identity("train", config), "keys of the other method count for nothing"


def test_it_learns(tmp_path: Path) -> None:
    rows = read_history(
        train_in("train", inversion_config(tmp_path, "iterations=120", "student.arch=lenet", "batch_size=32")).history
    )
    losses = [row["kl"] for row in rows if "kl" in row]
    assert np.mean(losses[-3:]) < losses[0] / 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("engine.teacher=sharded", "engine.kind=deepspeed"),
            "engine.teacher='sharded': .* use replicated",
        ),
        (("pseudo_data=there", "loss.beta=0"), "method='inversion': .* use method=belief_matching"),
    ],
)
def test_what_cannot_be_combined(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inversion_config(tmp_path, *overrides)


def test_synthesize_writes_the_pool_with_the_teachers_answers(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = whole / "runs/digits/run", tmp_path / "pseudo"
    made = [str(run), "--out", str(out), "--shard-images", "8"]
    assert synthesize.main(made) == 0
    data = PseudoData.open(str(out))
    pixels, logits = data.read()
    files = [load_file(path)["images"] for path in pool_files(run / "pool")]
    mean, std = (torch.tensor(data.about[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    expected = (torch.cat(files) / 255 - mean) / std
    assert len(pixels) == 42
    torch.testing.assert_close(pixels.float(), expected, atol=2e-3, rtol=1e-3)
    weights = whole.glob("runs/teachers/lenet-*/teacher.safetensors")
    teacher = build_network("lenet", SHAPE, 10).eval()
    teacher.load_state_dict(load_file(next(weights)))
    with torch.no_grad():
        torch.testing.assert_close(logits, teacher(pixels.float()), atol=1e-4, rtol=1e-4)
    assert "inversion of the teacher" in (out / "README.md").read_text()
    before = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    assert len(before) == 6
    (out / "train-00001-of-00006.parquet").unlink()
    assert synthesize.main(made) == 0
    assert {path.name: path.read_bytes() for path in out.glob("*.parquet")} == before

    config = tiny_config(tmp_path, f"pseudo_data={out}", "loss.beta=0", "name=again")
    assert (train_in("train", config).finished() or {})["method"] is None
    capsys.readouterr()
    assert synthesize.main([str(run), "--images", "43", "--out", str(tmp_path / "more")]) == 2
    assert capsys.readouterr().err == "error: --images=43: the run's pool has 42 images; use at most as many\n"
