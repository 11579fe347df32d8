"""Runs as users start them on one machine: killed, stopped, on two processes, without the optional packages."""

import random
import re
import signal
from pathlib import Path

import pytest
from torch.multiprocessing.spawn import ProcessExitedException

from tests.support.commands import command, finish, kill_group, read_result, run, wait_for_iteration
from tests.support.configs import TINY, tiny_config
from tests.support.forks import SPAWNED_RANKS
from zskt_dist.errors import Interrupted
from zskt_dist.launch import local
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.training.job import Job

# Long enough to be caught in the middle, with checkpoints off the beat of evaluations.
RUN = [*TINY, "iterations=60", "evaluation.every=25", "checkpoint.every=10", "name=run", "student.arch=wrn-10-1"]
RUN += ["loss.beta=0"]


def test_killed_at_random_and_repeated_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    folder.mkdir()
    code, output = run("train", *RUN, folder=whole)
    assert code == 0, output
    expected = read_result(whole)
    for at in sorted(random.Random().sample(range(1, 50), 2)):
        process = command("train", *RUN, folder=folder)
        wait_for_iteration(process, folder / "runs/digits/run/progress.json", "student", at)
        kill_group(process)
        process.wait()
    code, output = run("train", *RUN, folder=folder)
    assert code == 0, output
    result = read_result(folder)
    assert result["student"]["sha256"] == expected["student"]["sha256"]
    assert result["resumed_from"] is None or result["resumed_from"] % 10 == 0
    assert result["student"]["accuracy_last"] == expected["student"]["accuracy_last"]


LIBRARY = """
import os, warnings
from zskt_dist.models import ImageShape
from zskt_dist.models.registry import build_network

def network(num_classes, image_shape):
    print(f"printed by rank {os.environ.get('RANK')}")
    warnings.warn("made by hand")
    return build_network("wrn-10-1", ImageShape(*image_shape), num_classes)
"""


def test_sigterm_saves_and_the_same_command_continues_on_two_processes(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(LIBRARY)
    arguments = [*RUN, "launch.workers=2", "student.arch=library:network"]
    as_users = {SPAWNED_RANKS: "1"}
    process = command("train", *arguments, folder=tmp_path, environment=as_users)
    wait_for_iteration(process, tmp_path / "runs/digits/run/progress.json", "student", 15)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 143, output
    assert output.count("stopping: work in progress is saved first") == 1, "one process says it for all"
    assert "the same command continues" in output
    assert "Traceback" not in output
    stopped_at = int(output.split("stopped at iteration ")[1].split()[0])
    code, output = run("train", *arguments, "-v", folder=tmp_path, environment=as_users)
    assert code == 0, output
    for rank in range(2):  # what workers write reaches the user, with rank and time where it is logged
        assert f"printed by rank {rank}" in output
        line = rf"^\d\d:\d\d:\d\d rank {rank}  "
        assert re.search(rf"{line}WARNING UserWarning: made by hand \(", output, re.MULTILINE)
        assert re.search(rf"{line}INFO worker {rank + 1} of 2 on ", output, re.MULTILINE)
    assert f"/checkpoints/{stopped_at:08d}-" in output
    result = read_result(tmp_path)
    assert result["resumed_from"] == stopped_at
    assert result["world_size"] == 2
    assert result["launcher"] == "local"


def test_a_finished_run_answers_from_its_result_and_fresh_keeps_the_old_one(tmp_path: Path) -> None:
    arguments = [*TINY, "iterations=2", "name=run"]
    assert run("train", *arguments, folder=tmp_path)[0] == 0
    first = (tmp_path / "runs/digits/run/result.json").stat()
    code, _ = run("train", *arguments, "--json", "again.json", folder=tmp_path)
    assert code == 0
    assert (tmp_path / "runs/digits/run/result.json").stat() == first
    assert (tmp_path / "again.json").read_text() == (tmp_path / "runs/digits/run/result.json").read_text()
    code, output = run("train", *arguments, "loss.beta=1", folder=tmp_path)
    assert code == 2
    assert "loss.beta" in output
    assert "--fresh" in output
    assert run("train", *arguments, "--fresh", folder=tmp_path)[0] == 0
    assert len(list((tmp_path / "runs/digits").glob("run*/result.json"))) == 2


def test_pretraining_again_shows_the_result_whatever_the_transfer_is_to_be(tmp_path: Path) -> None:
    for number, overrides in enumerate(([], [], ["loss.beta=1", "iterations=7"])):
        code, output = run("pretrain", *TINY, *overrides, folder=tmp_path)
        assert code == 0, output
        assert ("Finished earlier; --fresh starts over" in output) == (number > 0)
    assert read_result(tmp_path, "runs/teachers/*/result.json")["student"] is None


@pytest.mark.parametrize("saved", [0, 30])
def test_a_worker_that_dies_while_it_stops_leaves_the_last_checkpoint(
    saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job.plan("train", tiny_config(tmp_path, "launch.workers=2", "iterations=60"))
    job.directory.path.mkdir(parents=True)
    if saved:
        CheckpointStore(job.directory.checkpoints).save(saved, {})

    class Workers:
        processes = ()

        def join(self, timeout: float) -> bool:
            job.directory.stop.touch()
            raise ProcessExitedException("killed", error_index=1, error_pid=1, exit_code=-9)

    monkeypatch.setattr(local, "start_processes", lambda *_, **__: Workers())
    with pytest.raises(Interrupted, match=f"^stopped at iteration {saved} of 60$"):
        local.launch(job)
