"""What `evaluate` measures, against plain loops over the whole test split; in parts, over workers, interrupted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from tests.support.jobs import evaluate_in
from zskt_dist.config import Config, with_overrides
from zskt_dist.data import open_dataset
from zskt_dist.distributed.world import World
from zskt_dist.errors import Interrupted
from zskt_dist.evaluation.curves import CurveParts
from zskt_dist.evaluation.evaluated_run import EvaluatedRun
from zskt_dist.networks.building import load_trained
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
MEASURE = ["transitions.images=20", "transitions.steps=4", "transitions.rows=30", "transitions.step_size=5.0"]


def _trained(folder: Path) -> tuple[RunDirectory, Config]:
    """A finished tiny zero-shot run, and the configuration to measure it with."""
    overrides = ("iterations=60", "supervised.iterations=400", "supervised.batch_size=32", "transfer.student_steps=5")
    overrides += ("name=run", "evaluation.every=0", "checkpoint.every=0")
    config = tiny_config(folder, *overrides)
    job = Job.plan("train", config)
    directory = job.directory
    directory.begin("train", config, job.goal.inputs.get("teacher"))
    Worker(job, ALONE).run()
    return directory, with_overrides(config, [*MEASURE, f"teacher.checkpoint={directory.teacher_weights()}"])


def _evaluate(world: World, path: Path, config: Config) -> dict[str, Any]:
    evaluate_in(path, config, world)
    world.barrier()
    return dict(json.loads((path / "evaluation/evaluation.json").read_text()))


def test_scores_and_curves_are_those_of_plain_loops(tmp_path: Path) -> None:
    directory, config = _trained(tmp_path)
    answer = _evaluate(ALONE, directory.path, config)
    test = open_dataset(config).test
    x = open_dataset(config).standardise(torch.device("cpu"))(test.images)
    student = load_trained(config, "student", directory.weights("student"))[0]
    teacher = load_trained(config, "teacher", Path(str(config.teacher.checkpoint)))[0]
    guesses, beliefs = student(x).argmax(1), teacher(x).argmax(1)
    result = directory.finished()
    assert result is not None
    assert answer["accuracy"] == pytest.approx((guesses == test.labels).double().mean().item())
    assert answer["accuracy"] == pytest.approx(result["student"]["accuracy_last"])
    assert answer["teacher_accuracy"] > 0.5 > 0.15 < answer["accuracy"], "networks that have learnt something"
    assert answer["agreement"] == pytest.approx((guesses == beliefs).double().mean().item())
    for label, share in enumerate(answer["per_class_accuracy"]["student"]):
        assert share == pytest.approx((guesses[test.labels == label] == label).double().mean().item())
    assert sum(answer["noise"]["student"]) == pytest.approx(1)

    table = pq.read_table(directory.evaluation / "transition_curves.parquet").to_pandas()
    matching = np.flatnonzero((guesses == beliefs).numpy())[:20]
    assert sorted(table["image"].unique()) == matching.tolist(), "positions are of the test split"
    assert len(table) == 20 * 9 * 4
    first = table[table["step"] == 0]
    probabilities = torch.softmax(student(x), dim=1)
    for row in first.itertuples():
        assert row.from_class == guesses[row.image]
        assert row.to_class != row.from_class
        assert row.p_a == pytest.approx(probabilities[row.image, row.to_class].item(), abs=1e-5)
    assert answer["mte"]["value"] == pytest.approx((table["p_a"] - table["p_b"]).abs().mean(), abs=1e-6)
    assert answer["mte"] | {"value": 0} == {
        "value": 0,
        "dataset": "digits",
        "steps": 4,
        "step_size": 5.0,
        "images": 20,
        "stepped": "student",
        "skip": "agreed",
        "images_per_class": None,
    }
    assert result["mte"] == answer["mte"]
    assert result["num_classes"] == 10
    last = table[table["step"] == 3].groupby("image")["p_a"].mean()  # the targets of one image are not independent
    assert len(last) == 20
    assert answer["mean_curves"]["p_a"][3] == pytest.approx(last.mean(), abs=1e-6)
    assert answer["mean_curves"]["p_a_standard_error"][3] == pytest.approx(last.std(ddof=1) / 20**0.5, abs=1e-6)
    assert EvaluatedRun(directory, config).finished() == answer
    assert EvaluatedRun(directory, with_overrides(config, ["transitions.steps=5"])).finished() is None


def test_two_workers_measure_what_one_does(two_ranks: Ranks, tmp_path: Path) -> None:
    directory, config = _trained(tmp_path)
    alone = _evaluate(ALONE, directory.path, config)
    odd = config.model_copy(update={"batch_size": 7})  # that no two workers could train on
    both, _ = two_ranks.run(_evaluate, directory.path, odd)
    assert both.pop("mean_curves")["p_b"] == pytest.approx(alone.pop("mean_curves")["p_b"], abs=1e-6)
    assert both.pop("mte")["value"] == pytest.approx(alone.pop("mte")["value"], abs=1e-6)
    eces = [[entry["ece"] for entry in answer["calibration"].values()] for answer in (both, alone)]
    assert eces[0] == pytest.approx(eces[1], abs=1e-6)
    for who in ("student", "teacher"):
        assert sum(both["noise"][who]) == pytest.approx(1)
        assert both["noise"][who] == alone["noise"][who], "each batch is whole on one of the workers"
    assert both["confusion"] == alone["confusion"]


def test_an_interrupted_evaluation_goes_on_with_the_next_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, config = _trained(tmp_path)
    whole = _evaluate(ALONE, directory.path, config)
    (directory.evaluation / "evaluation.json").unlink()
    written: list[int] = []
    write = CurveParts._write

    def note(parts: CurveParts, number: int, curves: Any) -> None:
        write(parts, number, curves)
        written.append(number)
        if len(written) == 3:
            directory.stop.touch()

    monkeypatch.setattr(CurveParts, "_write", note)
    monkeypatch.setattr("zskt_dist.distributed.stop_vote._FILE_POLL_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        _evaluate(ALONE, directory.path, config)
    directory.stop.unlink()
    assert _evaluate(ALONE, directory.path, config) == whole
    assert sorted(written) == list(range(7)), "20 images, 3 in a part: no part was computed twice"
    assert not list(directory.evaluation.glob("curves-*"))
