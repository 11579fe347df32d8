"""Full estimates: counted image by image, the same for one worker and two, after training and in `evaluate`."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from tests.support.jobs import evaluate_in
from tests.support.nets import TinyClassifier, TinyGenerator
from zskt_dist.config import Config, with_overrides
from zskt_dist.data import Standardise
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.estimates import brief, collapse, estimate
from zskt_dist.evaluation.held_out import HeldOut
from zskt_dist.evaluation.image_sources import batches, uniform_noise
from zskt_dist.figures.run import draw_run
from zskt_dist.models import ImageShape
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
SHAPE = ImageShape(1, 4, 4)
STANDARDISE = Standardise((0.5,), (0.25,), torch.device("cpu"))


def _config(*overrides: str) -> Config:
    settings = ("generator.z_dim=5", "evaluation.held_out_images=20", "evaluation.snapshots=2", *overrides)
    return tiny_config(Path("unused"), *settings)


def _networks() -> tuple[TinyGenerator, TinyClassifier, TinyClassifier]:
    torch.manual_seed(3)
    return TinyGenerator(norm=True), TinyClassifier(3).eval(), TinyClassifier(2)


def _estimate(world: World, *overrides: str) -> Any:
    """At the end of ten iterations, with the generator changed since the snapshot at 5; as a JSON file has it."""
    generator, teacher, student = _networks()
    config = _config(*overrides)
    held_out = HeldOut(config, lambda: nullcontext(generator), teacher, SHAPE, world)
    held_out.after(5)
    with torch.no_grad():
        generator.linear.weight.mul_(-0.5)
    sources = [*held_out.sources(10), uniform_noise(SHAPE, STANDARDISE, world.device)]
    return json.loads(json.dumps(estimate(config, student, teacher, sources, world)))


def test_each_source_is_described_and_all_generators_together() -> None:
    answer = _estimate(ALONE)
    sources = answer["sources"]
    assert answer["estimate"] is True
    assert [(name, entry["iteration"]) for name, entry in sources.items()] == [
        *(("generator_00000005", 5), ("generator_00000010", 10), ("noise", None), ("uniform_noise", None))
    ]
    assert answer["num_classes"] == 3
    assert {entry["images"] for entry in sources.values()} == {20}
    whole, pair = answer["held_out"], [sources["generator_00000005"], sources["generator_00000010"]]
    assert whole["images"] == 40
    assert whole["agreement"] == pytest.approx(sum(entry["agreement"] for entry in pair) / 2)
    counts = [entry["student"]["confidence_counts"] for entry in (*pair, whole)]
    assert [a + b for a, b in zip(*counts[:2], strict=True)] == counts[2]
    assert list(brief(answer)) == ["held_out", "noise", "uniform_noise"]
    assert brief(answer)["held_out"]["kl_50"] == whole["kl_quantiles"]["50"]
    assert 0 < brief(answer)["held_out"]["agreement"] < 1, "else this test would show little"


def _answer(agreement: float, low: float, chance: float, *entropies: float, name: str = "yardstick") -> Any:
    teacher, student = ({"class_entropy": entropy} for entropy in entropies)
    entry = {"agreement": agreement, "agreement_low": low, "chance_agreement": chance}
    return {"sources": {name: entry | {"teacher": teacher, "student": student}}}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_answer(0.9, 0.85, 0.1, 2.3, 2.2), None),
        (_answer(0.12, 0.09, 0.1, 2.3, 2.2), "no more often than by chance: 12.0%, by chance 10.0%"),
        (_answer(0.1, 0.09, 0.05, 2.3, 0.05), "the student puts nearly all made images into one class"),
        (_answer(1.0, 0.99, 1.0, 0.0, 0.0, name="noise"), "the teacher puts nearly all"),
    ],
)
def test_agreement_that_means_nothing_is_said(answer: Any, words: str | None) -> None:
    found = collapse(answer)
    assert found is None if words is None else words in (found or "")


def test_uniform_noise_is_bytes_in_the_networks_input_space() -> None:
    source = uniform_noise(SHAPE, STANDARDISE, torch.device("cpu"))
    drawn = list(batches(source, 3, _config("batch_size=8", "evaluation.held_out_images=20")))
    assert [len(x) for x in drawn] == [8, 8, 4]
    pixels = (torch.cat(drawn) * 0.25 + 0.5) * 255
    assert torch.allclose(pixels, pixels.round(), atol=1e-3)
    assert (pixels.min() < 10, pixels.max() > 245) == (True, True)
    _, teacher, student = _networks()
    answer = estimate(_config(), student, teacher, [source], ALONE)
    assert answer is not None
    x = torch.cat(list(batches(source, 0, _config())))
    with torch.no_grad():
        same = teacher(x).argmax(1) == student.eval()(x).argmax(1)
    assert answer["sources"]["uniform_noise"]["agreement"] == pytest.approx(np.mean(same.tolist()))
    assert answer["held_out"] is None
    assert list(brief(answer)) == ["uniform_noise"]


def test_two_workers_see_what_one_sees(two_ranks: Ranks) -> None:
    odd = "evaluation.held_out_images=13"  # 8 and 5 images in a batch: shares of different size
    alone = _estimate(ALONE, odd)
    for of_rank in two_ranks.run(_estimate, odd):
        assert _flat(of_rank) == pytest.approx(_flat(alone), abs=1e-6)


def test_nothing_is_estimated_where_no_images_are_asked_for() -> None:
    _, teacher, student = _networks()
    assert estimate(_config("evaluation.held_out_images=0"), student, teacher, [], ALONE) is None


@pytest.mark.rendered
def test_a_run_keeps_its_estimates_and_evaluate_finds_the_same(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "name=run", "evaluation.held_out_images=32", "evaluation.every=0")
    job = Job.plan("train", config)
    directory = job.directory
    directory.begin("train", config, job.goal.inputs.get("teacher"))
    Worker(job, ALONE).run()
    at_the_end, result = json.loads(directory.estimates.read_text()), directory.finished()
    assert result is not None
    assert result["estimates"]["sources"] == brief(at_the_end)
    assert result["estimates"]["sources"]["held_out"]["images"] == 5 * 32
    draw_run(directory)
    assert (directory.figures / "estimates.png").stat().st_size > 10_000

    own = f"teacher.checkpoint={directory.teacher_weights()}"
    again = _evaluate(directory, with_overrides(config, [own, "transitions.images=0"]))
    assert _flat(again) == pytest.approx(_flat(at_the_end), abs=1e-6)
    more = _evaluate(directory, with_overrides(config, [own, "transitions.images=0", "evaluation.held_out_images=64"]))
    assert more["held_out"]["images"] == 5 * 64
    told = directory.finished()
    assert told is not None
    assert told["estimates"]["sources"] == brief(more)
    assert told["estimates"]["label_free_score"] == result["estimates"]["label_free_score"], "selection's own stays"


def _evaluate(directory: RunDirectory, config: Config) -> Any:
    evaluate_in(directory.path, config, ALONE)
    return json.loads(directory.estimates.read_text())


def _flat(answer: Any, name: str = "") -> dict[str, float]:
    """All numbers of nested dictionaries and lists by their path."""
    if isinstance(answer, dict | list):
        entries = answer.items() if isinstance(answer, dict) else enumerate(answer)
        return {path: value for key, entry in entries for path, value in _flat(entry, f"{name}/{key}").items()}
    return {name: float(answer)} if isinstance(answer, int | float) else {}
