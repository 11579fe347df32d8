"""Label-free scores: worked out by hand for small networks, the same for one worker and two, and after a restart."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.configs import tiny_config
from tests.support.damage import flip_a_byte
from tests.support.distributed import Ranks
from tests.support.nets import TinyClassifier, TinyGenerator, Viewing
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.estimates import brief, estimate
from zskt_dist.evaluation.held_out import HeldOut, generator_drift, snapshot_moments, snapshot_path
from zskt_dist.evaluation.image_sources import batches, generated, normalised_together
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tasks.transfer import TransferTraining
from zskt_dist.tracking.local import read_history
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
SHAPE, SHAPE8 = ImageShape(1, 4, 4), ImageShape(1, 8, 8)


def _config(*overrides: str) -> Config:
    settings = ("generator.z_dim=5", "evaluation.held_out_images=20", "evaluation.snapshots=2", *overrides)
    return tiny_config(Path("unused"), *settings)


def _networks(*, norm: bool = False) -> tuple[nn.Module, nn.Module, nn.Module]:
    torch.manual_seed(1)
    return TinyGenerator(norm=norm), TinyClassifier(3).eval(), TinyClassifier(2)


def _scores(world: World, folder: Path | None = None, *overrides: str) -> dict[str, float]:
    """After iteration 7 of 10, with the generator changed since the snapshot at 5."""
    generator, teacher, student = _networks(norm=True)
    held_out = HeldOut(_config(*overrides), lambda: nullcontext(generator), teacher, SHAPE, world, folder)
    held_out.after(5)
    with torch.no_grad():
        generator.linear.weight.mul_(-0.5)
    return held_out.judge(student, 7)


def test_scores_are_the_agreement_and_divergence_counted_image_by_image() -> None:
    generator, teacher, student = _networks()
    held_out = HeldOut(_config("batch_size=8"), lambda: nullcontext(generator), teacher, SHAPE, ALONE)
    held_out.after(4)  # no moment
    held_out.after(5)
    early = TinyGenerator()
    early.load_state_dict(generator.state_dict())
    with torch.no_grad():
        generator.linear.bias.add_(0.3)
    scores = held_out.judge(student, 7)

    agreements, divergences = [], []
    for number, source in enumerate((early, generator, None)):
        size = (5,) if source else (1, 4, 4)
        rng = stream(0, Purpose.HELD_OUT, number)
        z = torch.from_numpy(np.concatenate([normal(rng, count, *size) for count in (8, 8, 4)]))
        for image in source(z) if source else z:
            p, q = (torch.softmax(network(image[None])[0], dim=0).double() for network in (teacher, student))
            agreements.append(float(p.argmax() == q.argmax()))
            divergences.append((p * (p / q).log()).sum().item())
    assert scores["held_out_agreement"] == pytest.approx(np.mean(agreements[:40]))
    assert scores["noise_agreement"] == pytest.approx(np.mean(agreements[40:]))
    assert scores["label_free_score"] == pytest.approx(np.mean(agreements))
    assert scores["held_out_kl"] == pytest.approx(np.mean(divergences), rel=1e-5)
    assert 0 < scores["label_free_score"] < 1, "else this test would show little"


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "largest"),
    [(128, "null", 128), (128, 100, 64), (255, "null", 255), (10, 4, 4), (12, 5, 4), (3, 8, 3)],
)
def test_as_many_are_normalised_together_as_in_training(
    batch_size: int, micro_batch: int | str, largest: int, tmp_path: Path
) -> None:
    config = _config(f"batch_size={batch_size}", f"engine.micro_batch={micro_batch}")
    assert normalised_together(config) == largest
    teacher, student = (new_network(config, role, SHAPE8, 3) for role in ("teacher", "student"))
    task = TransferTraining(config, teacher.eval().requires_grad_(False), student, SHAPE8, ALONE)
    assert max(map(len, task.transfer.micro_batches(torch.zeros(batch_size, 5)))) == largest


def test_a_last_image_is_not_normalised_by_itself() -> None:
    """Seven images of a generator with batch norm, three together: the seventh is the first of a whole batch."""
    generator = TinyGenerator(norm=True).train()
    source = generated(generator, 1, 5, ALONE.device)
    config = _config("evaluation.held_out_images=7", "batch_size=3")
    rng = stream(config.seed, Purpose.HELD_OUT, 4)
    z = [torch.from_numpy(normal(rng, 3, 5)) for _ in range(3)]
    images = list(batches(source, 4, config))
    assert [len(x) for x in images] == [3, 3, 1]
    torch.testing.assert_close(torch.cat(images), torch.cat([generator(each) for each in z])[:7])


def test_a_copy_of_the_teacher_agrees_everywhere() -> None:
    generator, teacher, _ = _networks()
    scores = HeldOut(_config(), lambda: nullcontext(generator), teacher, SHAPE, ALONE).judge(teacher, 10)
    assert scores == {
        "label_free_score": 1.0,
        "held_out_agreement": 1.0,
        "noise_agreement": 1.0,
        "held_out_kl": pytest.approx(0, abs=1e-12),
    }


@pytest.mark.parametrize("micro_batch", ["null", "6"])
def test_two_workers_see_what_one_sees(two_ranks: Ranks, micro_batch: str) -> None:
    setting = f"engine.micro_batch={micro_batch}"
    alone = _scores(ALONE, None, setting)
    for of_rank in two_ranks.run(_scores, None, setting):
        assert of_rank == pytest.approx(alone)


def _of_single_images(world: World) -> dict[str, float]:
    """By networks that cannot be asked about no images."""
    torch.manual_seed(1)
    generator, teacher, student = TinyGenerator(), Viewing().eval(), Viewing()
    config = _config("engine.micro_batch=1", "evaluation.held_out_images=5")
    held_out = HeldOut(config, lambda: nullcontext(generator), teacher, SHAPE, world)
    estimates = brief(estimate(config, student, teacher, held_out.sources(7), world) or {})
    return held_out.judge(student, 7) | {f"{name}_images": entry["images"] for name, entry in estimates.items()}


def test_a_worker_without_a_share_of_a_batch(two_ranks: Ranks) -> None:
    alone = _of_single_images(ALONE)
    assert (alone["held_out_images"], alone["noise_images"]) == (5, 5)
    for of_rank in two_ranks.run(_of_single_images):
        assert of_rank == pytest.approx(alone)


@pytest.mark.parametrize("damage", [Path.unlink, flip_a_byte])
def test_snapshots_survive_a_restart_and_a_lost_one_is_left_out(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    before = _scores(ALONE, tmp_path)
    generator, teacher, student = _networks(norm=True)
    with torch.no_grad():
        generator.linear.weight.mul_(-0.5)
    again = HeldOut(_config(), lambda: nullcontext(generator), teacher, SHAPE, ALONE, tmp_path)
    assert again.judge(student, 7) == before
    assert not caplog.text
    damage(snapshot_path(tmp_path, 5))
    left = HeldOut(_config(), lambda: nullcontext(generator), teacher, SHAPE, ALONE, tmp_path)
    assert left.judge(student, 7) != before
    assert "generator_00000005.safetensors is" in caplog.text
    assert "the label-free scores leave it out" in caplog.text


def test_moments_are_evenly_spaced_and_end_with_the_run() -> None:
    assert snapshot_moments(1000, 5) == [200, 400, 600, 800, 1000]
    assert snapshot_moments(3, 5) == [1, 2, 3]
    assert snapshot_moments(10, 0) == []


def test_drift_is_the_difference_of_the_last_two_fifths() -> None:
    rows = [{"iteration": i, "time": 0, "generator_loss": loss} for i, loss in enumerate([9] * 6 + [4, 2, 1, 0])]
    assert generator_drift([*rows, {"iteration": 10, "time": 0, "accuracy": 1}]) == pytest.approx(0.5 - 3)
    assert generator_drift(rows[:9]) is None


def test_a_run_is_judged_at_every_evaluation_and_trained_as_without(tmp_path: Path) -> None:
    results = {}
    for images in (0, 32):
        job = Job.plan("train", tiny_config(tmp_path, f"name=judged-{images}", f"evaluation.held_out_images={images}"))
        directory = job.directory
        Worker(job, ALONE).run()
        results[images] = json.loads(directory.result.read_text())
    assert results[0]["student"]["sha256"] == results[32]["student"]["sha256"]
    assert results[0]["estimates"] is None
    judged = [row for row in read_history(directory.history) if "label_free_score" in row]
    assert [row["iteration"] for row in judged] == [4, 8, 10]
    sources = results[32]["estimates"].pop("sources")
    assert results[32]["estimates"] == {name: judged[-1][name] for name in results[32]["estimates"]}
    # The end is described in full on the images that the last evaluation has counted.
    assert sources["held_out"]["agreement"] == pytest.approx(judged[-1]["held_out_agreement"])
    assert sources["noise"]["agreement"] == pytest.approx(judged[-1]["noise_agreement"])
    assert not RunDirectory(directory.path.with_name("judged-0")).estimates.exists()
    assert sorted(path.name for path in directory.snapshots.glob("*.safetensors")) == [
        f"generator_{iteration:08d}.safetensors" for iteration in (2, 4, 6, 8, 10)
    ]
