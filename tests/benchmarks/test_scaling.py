from pathlib import Path

import pytest

from benchmarks import scaling_gpu
from benchmarks.scaling import check, draw, measure, predict, tables

PAIR = ("wrn-10-1", "wrn-10-1")


@pytest.mark.slow  # three processes import torch
def test_measured_fitted_predicted_and_drawn(tmp_path: Path) -> None:
    # Compiled, as it is published, each of the three processes takes a minute.
    measured = measure(PAIR, batches=(2, 4), student_steps=1, repetitions=1, settings=["speed.compile=false"])
    answer = {"measured": measured, "model": check(measured), "gpus": predict(PAIR)}
    assert [(point["workers"], point["batch"]) for point in answer["model"]["points"]] == [
        (1, 2),
        (1, 4),
        (2, 2),
        (2, 4),
    ]
    assert "batch 4096" in tables(answer)
    draw(answer, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_machine_that_obeys_the_model_is_predicted_exactly() -> None:
    """0.5 s and 0.1 s an image; 2 ms and a microsecond a byte for each of the three all-reduces."""
    points = check(
        {
            "student_steps": 2,
            "generator_bytes": 4000,
            "student_bytes": 1000,
            "one_process_seconds": {16: 2.1, 32: 3.7},
            "two_processes_seconds": {32: 2.1 + 3 * 0.002 + 0.006},
            "all_reduce_seconds": {1000: 0.003, 4000: 0.006},
        }
    )["points"]
    assert [point["error"] for point in points] == pytest.approx([0, 0, 0])
    assert points[2]["communication_seconds"] == pytest.approx(0.012)


def test_work_of_an_iteration() -> None:
    """Counted, so it grows with the student's steps; `fresh` asks generator and teacher again in each of them."""
    one, three = (scaling_gpu.work(f"transfer.student_steps={steps}", pair=PAIR) for steps in (1, 3))
    fresh = scaling_gpu.work("transfer.student_steps=3", "transfer.pseudo_batch=fresh", pair=PAIR)
    assert one.flop_per_image < three.flop_per_image < fresh.flop_per_image
    assert one.kernels < three.kernels < fresh.kernels
    assert one.student_bytes == three.student_bytes


def test_settings_that_are_to_help_do() -> None:
    work = scaling_gpu.Work(flop_per_image=4e9, kernels=5000, generator_bytes=4_000_000, student_bytes=700_000)
    gpus, (shipped, larger, _, local, _) = scaling_gpu.cluster(), scaling_gpu.settings(work, work)
    assert shipped.efficiency(gpus, 64) < larger.efficiency(gpus, 64) < local.efficiency(gpus, 64)
