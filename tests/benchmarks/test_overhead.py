import pytest

from benchmarks.overhead import CHARGED, Subject, iterations_between, measure
from benchmarks.subject import configured
from zskt_dist.models import ImageShape


@pytest.mark.slow  # MLflow makes its tables
def test_every_part_of_a_run_is_timed() -> None:
    settings = ["batch_size=4", "iterations=100", "evaluation.held_out_images=4", "tracking.images=4"]
    config = configured(*settings, name="digits", pair=("wrn-10-1", "wrn-10-1"))
    answer = measure(Subject(config, ImageShape(1, 8, 8), test_images=20, measured_images=10), repetitions=1)
    events = answer["events"]
    assert all(event["seconds"] > 0 for event in events.values())
    assert answer["tracking_and_checkpoint_share"] == pytest.approx(
        sum(events[name]["share_of_training"] for name in CHARGED)
    )
    checkpoint = events["checkpoint"]
    assert checkpoint["every"] == config.checkpoint.every
    assert checkpoint["share_of_training"] == pytest.approx(
        checkpoint["seconds"] / config.checkpoint.every / answer["iteration_seconds"]
    )


def test_the_progress_file_is_written_three_times_a_second_at_most() -> None:
    config = configured(name="digits")
    assert iterations_between("progress file", config, iteration_seconds=0.1) == pytest.approx(3)
    assert iterations_between("progress file", config, iteration_seconds=1.0) == 1
    assert iterations_between("accuracy", config, 1.0) == 40
