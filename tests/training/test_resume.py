"""Interrupted = uninterrupted, bit for bit, on the CPU with a fixed number of workers."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.configs import TINY, tiny_config
from tests.support.distributed import Ranks
from zskt_dist.commands import shared as cli
from zskt_dist.distributed.world import World
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Loop
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
# Networks with batch norm: each rank's own statistics have to come back too.
NETWORKS = ("student.arch=wrn-10-1", "teacher.arch=wrn-10-1", "iterations=7", "supervised.iterations=6")


class Killed(RuntimeError):
    """Stands for SIGKILL: nothing is saved on the way out."""


def _train(
    world: World, folder: Path, name: str, overrides: tuple[str, ...] = (), command: str = "train"
) -> dict[str, object] | None:
    job = Job.plan(command, tiny_config(folder, *NETWORKS, f"name={name}", *overrides))
    Worker(job, world).run()
    return job.directory.finished()


def _killed_at(
    world: World,
    folder: Path,
    name: str,
    phase: str,
    iteration: int,
    overrides: tuple[str, ...] = (),
    command: str = "train",
) -> None:
    """As `_train`, dying before `iteration` of `phase` is finished."""
    with pytest.MonkeyPatch.context() as patch:
        numbers = Loop._report

        def report(loop: Loop, done: int, values: dict[str, float]) -> None:
            if loop.training.phase == phase and done >= iteration:
                raise Killed
            numbers(loop, done, values)

        patch.setattr(Loop, "_report", report)
        with pytest.raises(Killed):
            _train(world, folder, name, ("tracking.log_every=1", *overrides), command)


def _stopped(world: World, folder: Path, name: str) -> int:
    """As `_train`, asked to stop through the file from the start; where it stopped."""
    job = Job.plan("train", tiny_config(folder, *NETWORKS, f"name={name}"))
    directory = job.directory
    if world.is_main:
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.stop.touch()
    world.barrier()
    with pytest.raises(Interrupted) as stopped:
        Worker(job, world).run()
    world.barrier()
    if world.is_main:
        directory.stop.unlink(missing_ok=True)
    return stopped.value.iteration


def test_a_stop_is_heard_while_another_run_trains_the_teacher(tmp_path: Path) -> None:
    job = Job.plan("train", tiny_config(tmp_path, *NETWORKS))
    directory, teacher = job.directory, job.stages[0].directory
    directory.path.mkdir(parents=True)
    held = teacher.try_lock()
    assert held
    directory.stop.touch()
    with held, pytest.raises(Interrupted, match="stopped before it began"):
        Worker(job, ALONE).run()


def _sha256(result: object) -> str:
    assert isinstance(result, dict)
    return str(result["student"]["sha256"])


@pytest.mark.parametrize(("phase", "iteration"), [("teacher", 5), ("student", 2), ("student", 5)])
def test_one_worker_killed_and_continued_ends_with_the_same_bits(tmp_path: Path, phase: str, iteration: int) -> None:
    expected = _train(ALONE, tmp_path / "whole", "run")
    _killed_at(ALONE, tmp_path / "killed", "run", phase, iteration)
    result = _train(ALONE, tmp_path / "killed", "run")
    assert _sha256(result) == _sha256(expected)
    assert result is not None
    assert result["resumed_from"] == (3 if (phase, iteration) == ("student", 5) else None)


FEW = ("data.images_per_class=3", "finetune.iterations=6", "finetune.batch_size=8", "finetune.batch_norm=train")


@pytest.mark.parametrize(
    ("command", "phase"),
    [("distill", "distill"), ("finetune", "student"), ("finetune", "finetune"), ("pretrain", "scratch")],
)
def test_every_command_killed_and_continued_ends_with_the_same_bits(tmp_path: Path, command: str, phase: str) -> None:
    overrides = (*FEW, "supervised.network=student") if command == "pretrain" else FEW
    expected = _train(ALONE, tmp_path / "whole", "run", overrides, command)
    _killed_at(ALONE, tmp_path / "killed", "run", phase, 5, overrides, command)
    result = _train(ALONE, tmp_path / "killed", "run", overrides, command)
    assert _sha256(result) == _sha256(expected)
    assert result is not None
    assert result["resumed_from"] == (3 if phase == command or phase == "scratch" else None)


def test_several_seeds_killed_in_the_second_go_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*TINY, *NETWORKS, "name=run", "seeds=[0,1]", "teacher.seed=0", "tracking.log_every=1"]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert cli.training_command("train", "", arguments) == 0

    monkeypatch.chdir(tmp_path / "killed")
    reports: list[tuple[str, int]] = []
    report = Loop._report

    def killed(loop: Loop, done: int, values: dict[str, float]) -> None:
        reports.append((loop.training.phase, done))
        if "accuracy" not in values and reports.count(("student", 5)) == 2:
            raise KeyboardInterrupt
        report(loop, done, values)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", killed)
        assert cli.training_command("train", "", arguments) == 130
    first = Path("runs/digits/run-seed0/result.json")
    written = first.stat()
    assert cli.training_command("train", "", arguments) == 0
    assert first.stat() == written, "the finished seed is left alone"
    for seed in (0, 1):
        runs = [
            RunDirectory(tmp_path / name / f"runs/digits/run-seed{seed}").finished() for name in ("whole", "killed")
        ]
        assert _sha256(runs[0]) == _sha256(runs[1])
    assert runs[1] is not None
    assert runs[1]["resumed_from"] == 3


def test_two_workers_stopped_again_and_again_end_with_the_same_bits(two_ranks: Ranks, tmp_path: Path) -> None:
    expected, _ = two_ranks.run(_train, tmp_path / "whole", "run")
    stops = [two_ranks.run(_stopped, tmp_path / "stopped", "run") for _ in range(4)]
    assert all(a == b for a, b in stops), "the ranks left after different iterations"
    result, _ = two_ranks.run(_train, tmp_path / "stopped", "run")
    assert _sha256(result) == _sha256(expected)
    assert result["resumed_from"] == stops[-1][0]


def test_neither_evaluating_nor_saving_changes_the_training(two_ranks: Ranks, tmp_path: Path) -> None:
    often, _ = two_ranks.run(_train, tmp_path, "often", ("evaluation.every=1", "checkpoint.every=1"))
    never, _ = two_ranks.run(_train, tmp_path, "never", ("evaluation.every=0", "checkpoint.every=0"))
    assert _sha256(often) == _sha256(never)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = _train(ALONE, tmp_path / "whole", "run")
    _killed_at(ALONE, tmp_path / "killed", "run", "student", 7)
    directory = RunDirectory(tmp_path / "killed" / "runs" / "digits" / "run")
    older, newest = sorted(directory.checkpoints.glob("*.pt"))
    content = bytearray(newest.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    newest.write_bytes(content)
    result = _train(ALONE, tmp_path / "killed", "run")
    assert _sha256(result) == _sha256(expected)
    assert result is not None
    assert result["resumed_from"] == int(older.name.split("-")[0])
    assert str(newest) in caplog.text


def test_one_worker_can_continue_what_two_began(two_ranks: Ranks, tmp_path: Path) -> None:
    two_ranks.run(_stopped, tmp_path, "run")
    result = _train(ALONE, tmp_path, "run")
    assert result is not None
    assert result["world_size"] == 1
    assert result["status"] == "finished"


def test_the_transfer_never_reads_a_real_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the data set replaced by noise once the teacher exists, the student comes out the same, to the bit."""
    checkpoint = tmp_path / "runs" / "teachers"
    expected = _train(ALONE, tmp_path, "real")
    (weights,) = checkpoint.glob("*/teacher.safetensors")

    from zskt_dist.data import sources
    from zskt_dist.data.images import Split

    def noise(split: str) -> Split:
        assert split == "test", "the transfer asked for training images"
        return Split(torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8), torch.randint(0, 10, (50,)))

    monkeypatch.setattr(sources, "read_digits", noise)
    result = _train(ALONE, tmp_path, "noise", (f"teacher.checkpoint={weights}",))
    assert result is not None
    assert _sha256(result) == _sha256(expected)
    assert expected is not None
    assert result["teacher"] != expected["teacher"], "the evaluation was to see the other images"


def _warned_with(world: World, folder: Path, teacher: Path) -> list[int]:
    """Iterations of the checkpoints of a run whose machine is announced to go after the second report."""
    config = tiny_config(folder, "name=run", "iterations=9", "checkpoint.every=0", f"teacher.checkpoint={teacher}")
    job = Job.plan("train", config)
    asked: list[None] = []

    def preempted() -> bool:
        asked.append(None)
        return len(asked) >= 2

    saved: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        save = Loop._save

        def note(loop: Loop, done: int) -> None:
            if loop.training.phase == "student":
                saved.append(done)
            save(loop, done)

        patch.setattr(Loop, "_save", note)
        Worker(job, world, preempted=preempted).run()
    return saved


def test_a_machine_about_to_go_saves_first_and_once(two_ranks: Ranks, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    job = Job.plan("pretrain", tiny_config(tmp_path, "name=t"))
    Worker(job, ALONE).run()
    job.directory.weights("teacher").rename(teacher)
    for saved in (_warned_with(ALONE, tmp_path / "one", teacher), *two_ranks.run(_warned_with, tmp_path, teacher)):
        assert saved == [4, 9]


def _stopped_slowly(world: World, folder: Path) -> list[str]:
    """What is in the run directory at the moment when each rank has told the driver of the stop."""
    job = Job.plan("train", tiny_config(folder, *NETWORKS, "name=slow"))
    directory = job.directory
    if world.is_main:
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.stop.touch()
    world.barrier()
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        save, tell = CheckpointStore.save, RunDirectory.leave_failure

        def slow(store: CheckpointStore, *arguments: Any) -> Path:
            time.sleep(1)
            return save(store, *arguments)

        def note(directory: RunDirectory, error: UserError) -> None:
            tell(directory, error)
            seen.extend(path.name for path in folder.rglob("*.pt"))  # of the teacher, which comes first

        patch.setattr(CheckpointStore, "save", slow)
        patch.setattr(RunDirectory, "leave_failure", note)
        Worker(job, world).run_for_driver()
    world.barrier()
    return seen


def test_the_driver_is_told_of_a_stop_after_everything_is_saved(two_ranks: Ranks, tmp_path: Path) -> None:
    """It leaves at once then, and the workers end with it."""
    first, second = two_ranks.run(_stopped_slowly, tmp_path)
    assert len(first) == 1, "rank 0 has saved before it tells"
    assert second == [], "the other rank, which is ready earlier, says nothing"
