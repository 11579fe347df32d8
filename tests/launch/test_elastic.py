"""Real Ray nodes: one is lost, one joins; the run goes on with as many workers as there is room for."""

from pathlib import Path

import pytest

from benchmarks.faults import Run, strike
from tests.support.configs import TINY
from tests.support.ray_cluster import RayCluster
from zskt_dist.tasks.engines import cosine_decay
from zskt_dist.tracking.local import read_history

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EVERY, TOTAL = 20, 240
ARGUMENTS = [*TINY, "launch.workers=[1,2]", "launch.resize_seconds=3", "batch_size=9"]
ARGUMENTS += ["launch.cpus_per_worker=2"]  # one worker fits on a node
ARGUMENTS += [f"iterations={TOTAL}", f"checkpoint.every={EVERY}", "evaluation.every=120", "tracking.log_every=10"]
# So slow that the run outlasts what happens to it, and takes no time from what starts meanwhile.
ARGUMENTS += ["teacher.arch=tests.support.user_networks:Unhurried", "loss.beta=0", "speed=plain"]


@pytest.mark.timeout(900)
def test_a_lost_node_costs_less_than_a_checkpoint_interval_and_a_new_one_is_taken_up(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    enough = tmp_path / "enough"
    ray_cluster.gain()
    run = Run(tmp_path, ray_cluster.address, [*ARGUMENTS, f"teacher.options={{until: {enough}}}"])
    try:
        lost = strike(run, "lost", ray_cluster.lose, at=EVERY + 5)
        gained = strike(run, "gained", ray_cluster.gain, at=lost.iteration + EVERY)
        enough.touch()
        result = run.result()
    finally:
        run.kill()
        ray_cluster.alone()
    assert (lost.workers, gained.workers) == (1, 2)
    for fault in (lost, gained):
        assert fault.checkpoint < fault.went_on_at, "the new workers went on from what the others had saved"
        assert fault.wasted <= EVERY
    assert result["resumed_from"] == gained.checkpoint > lost.checkpoint > 0
    assert result["iterations"] == TOTAL
    assert result["world_size"] == 2
    rows = [row for row in read_history(run.directory / "history.parquet") if "kl" in row]
    assert [row["iteration"] for row in rows] == list(range(10, TOTAL + 1, 10)), "each iteration once, none left out"
    for row in rows:
        expected = 2e-3 * cosine_decay(int(row["iteration"]), TOTAL)
        assert row["student_learning_rate"] == pytest.approx(expected), "the schedule is that of the iteration"
