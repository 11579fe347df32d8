"""Students that learn from pseudo-data alone: one worker and two, interrupted or not, with and without a teacher."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from tests.support.jobs import evaluate_in, inputs_of
from tests.support.pseudo import write_pseudo_data
from zskt_dist.config import Config
from zskt_dist.data import open_dataset
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.evaluation.estimates import brief
from zskt_dist.evaluation.evaluated_run import EvaluatedRun
from zskt_dist.files import read_json
from zskt_dist.launch.evaluate import measured_config
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.building import load_trained, new_network, read_network
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.tasks.base import Context
from zskt_dist.tasks.pseudo_data import PseudoDataTraining
from zskt_dist.tracking.local import read_history
from zskt_dist.training.job import Job
from zskt_dist.training.loop import Loop
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
CAREFUL = "tests.support.user_networks:Careful"  # dropout, and a head that is not used


def _config(folder: Path, *overrides: str) -> Config:
    return tiny_config(folder, f"pseudo_data={folder / 'pseudo'}", "loss.beta=0", "name=run", *overrides)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With pseudo-data in it."""
    write_pseudo_data(tmp_path / "pseudo")
    return tmp_path


def _steps(world: World, folder: Path, *overrides: str) -> dict[str, Tensor]:
    """Parameters after a few float64 steps, and the metrics on the way."""
    config = _config(folder, *overrides)
    torch.set_default_dtype(torch.float64)
    try:
        task = PseudoDataTraining(config, inputs_of(open_dataset(config)), world)
        numbers = []
        for iteration in range(4):
            x, logits = task.batches(iteration)
            metrics = world.mean(task.matching.step(x.double(), logits.double()), task.weight)
            numbers.append([*metrics["kl"], *metrics["student_gradient_norm"], *metrics["teacher_classes"]])
    finally:
        torch.set_default_dtype(torch.float32)
    with task.trained() as network:
        return {**network.state_dict(), "reported": torch.tensor(numbers, dtype=torch.float64)}


@pytest.mark.parametrize("overrides", [(), ("batch_size=7",), ("batch_size=9", "engine.micro_batch=2")])
def test_one_worker_and_two_do_the_same(two_ranks: Ranks, folder: Path, overrides: tuple[str, ...]) -> None:
    alone = _steps(ALONE, folder, *overrides)
    for of_rank in two_ranks.run(_steps, folder, *overrides):
        assert alone.keys() == of_rank.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(of_rank[name], expected, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.usefixtures("float64")
def test_workers_leave_alone_what_has_no_part_in_the_answer(two_ranks: Ranks, folder: Path) -> None:
    config = _config(folder, f"student.arch={CAREFUL}")
    before = new_network(config, "student", ImageShape(1, 8, 8), 10).state_dict()
    first, second = two_ranks.run(_steps, folder, f"student.arch={CAREFUL}")
    assert torch.equal(first["head.weight"], second["head.weight"])
    for after in (first, second):
        assert not torch.allclose(after["head.weight"], before["head.weight"])
        assert torch.equal(after["auxiliary.weight"], before["auxiliary.weight"])


def test_steps_are_those_of_plain_adam_on_shuffled_epochs(folder: Path) -> None:
    """With the cosine of the whole run, and the epochs' order from the seed; 20 images in batches of 8."""
    images = write_pseudo_data(folder / "pseudo")
    config = _config(folder, "iterations=5", "seed=3")
    task = PseudoDataTraining(config, inputs_of(open_dataset(config)), ALONE)
    plain = new_network(config, "student", open_dataset(config).image_shape, 10)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1.0)
    epochs = [stream(3, Purpose.ORDER, epoch).permutation(20) for epoch in range(2)]
    order = np.concatenate(epochs)
    for iteration in range(5):
        metrics = task.step(iteration)
        places = order[8 * iteration : 8 * iteration + 8]
        x = torch.from_numpy(images.pixels[places]).float()
        teacher = torch.from_numpy(images.logits[places])
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 + np.cos(np.pi * iteration / 5)) / 2
        kl = torch.nn.functional.kl_div(plain(x).log_softmax(1), teacher.softmax(1), reduction="sum") / 80
        optimizer.zero_grad()
        kl.backward()
        optimizer.step()
        torch.testing.assert_close(metrics["kl"], kl.detach())
    with task.trained() as network:
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)


def _train(folder: Path, *overrides: str) -> dict[str, Any]:
    job = Job.plan("train", _config(folder, *overrides))
    directory = job.directory
    directory.begin("train", job.config, job.goal.inputs.get("teacher"))
    Worker(Job.from_dict(job.to_dict()), ALONE).run()
    return directory.finished() or {}


def test_without_a_teacher_nobody_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither trained nor read; the result says that there was none."""
    monkeypatch.setattr(Context, "network", lambda self, role: pytest.fail("asked for a teacher"))
    result = _train(folder)
    assert (result["status"], result["command"], result["iterations"]) == ("finished", "train", 10)
    assert result["teacher"] is None
    assert result["estimates"] is None
    assert result["student"]["agreement"] is None
    assert 0 <= result["student"]["accuracy_last"] <= 1
    assert not (folder / "runs/teachers").exists()
    assert not list((folder / "runs/digits/run").glob("snapshots/*"))


def _teacher(folder: Path) -> Path:
    """Its weights."""
    torch.manual_seed(1)
    checkpoint = folder / "teacher.pt"
    torch.save(build_network("lenet", ImageShape(1, 8, 8), 10).state_dict(), checkpoint)
    return checkpoint


def test_with_a_teacher_the_student_is_compared_and_stays_the_same(folder: Path) -> None:
    alone = _train(folder)
    checkpoint = _teacher(folder)
    compared = _train(folder, f"teacher.checkpoint={checkpoint}", f"runs_dir={folder / 'others'}")
    assert 0 <= compared["student"]["agreement"] <= 1
    assert compared["teacher"]["arch"] == "lenet"
    assert compared["student"]["sha256"] == alone["student"]["sha256"]


def test_a_teacher_says_without_images_how_alike_the_student_is(folder: Path) -> None:
    """On noise alone, for there is no generator."""
    overrides = (f"teacher.checkpoint={_teacher(folder)}", "data.name=none", "evaluation.held_out_images=20")
    result = _train(folder, *overrides)
    directory, config = RunDirectory(folder / "runs/digits/run"), _config(folder, *overrides)
    found = read_json(directory.estimates)
    agreement = found["sources"]["noise"]["agreement"]
    assert result["estimates"] == {"sources": brief(found), "noise_agreement": agreement}
    assert list(result["estimates"]["sources"]) == ["noise", "uniform_noise"]
    assert found["held_out"] is None

    student, shape = load_trained(config, "student", directory.weights("student"))
    teacher = read_network(config, "teacher", shape, 10, str(config.teacher.checkpoint), "teacher.checkpoint").eval()
    rng = stream(0, Purpose.HELD_OUT, 0)
    x = torch.cat([torch.from_numpy(normal(rng, count, *shape)) for count in (8, 8, 4)])
    with torch.no_grad():
        same = student(x).argmax(dim=1) == teacher(x).argmax(dim=1)
    assert found["sources"]["noise"]["agreement"] == same.double().mean().item()
    assert 0 < same.sum() < 20, "else this test would show little"


@pytest.mark.parametrize("student", ["wrn-10-1", CAREFUL])
def test_killed_and_continued_ends_with_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, student: str
) -> None:
    overrides = (f"student.arch={student}", "tracking.log_every=1")
    expected = _train(folder, *overrides, f"runs_dir={folder / 'whole'}")
    report = Loop._report

    def killed(loop: Loop, done: int, values: dict[str, float]) -> None:
        if done >= 5:
            raise KeyboardInterrupt
        report(loop, done, values)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", killed)
        with pytest.raises(KeyboardInterrupt):
            _train(folder, *overrides)
    result = _train(folder, *overrides)
    assert result["resumed_from"] == 3
    assert result["student"]["sha256"] == expected["student"]["sha256"]


def test_a_teacher_named_later_measures_the_student_and_is_not_its_own(folder: Path) -> None:
    result = _train(folder)
    directory, checkpoint = RunDirectory(folder / "runs/digits/run"), _teacher(folder)
    alone = EvaluatedRun(directory, measured_config(directory, []))
    assert (list(alone.weights), alone.is_own) == (["student"], True)
    config = measured_config(directory, [f"teacher.checkpoint={checkpoint}", "transitions.images=5"])
    measurement = EvaluatedRun(directory, config)
    evaluate_in(directory.path, config, ALONE)
    answer = measurement.finished()
    assert answer is not None
    assert 0 <= answer["agreement"] <= 1
    assert 0 <= answer["teacher_accuracy"] <= 1
    assert measurement.folder.parent == directory.evaluation
    assert directory.finished() == result, "which had no teacher"


def test_a_student_learns_from_pseudo_data(folder: Path) -> None:
    _train(folder, "iterations=150", "batch_size=20", "optimizer.student_lr=0.01")
    rows = read_history(folder / "runs/digits/run/history.parquet")
    losses = [row["kl"] for row in rows if "kl" in row]
    assert losses[-1] < losses[0] / 20


@pytest.mark.parametrize("changes", [{"mean": [0.5]}, {"num_classes": 7}, {"image_shape": [1, 9, 8]}])
def test_what_does_not_fit_the_data_set_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_pseudo_data(tmp_path / "pseudo", **changes)
    with pytest.raises(ConfigError, match=r"data\.name='digits': means .* but pseudo_data=.* ") as refused:
        _train(tmp_path)
    assert refused.value.key == "data.name"


def test_pseudo_data_is_all_a_student_needs(tmp_path: Path) -> None:
    """No data set and no teacher: the shards say what images are."""
    write_pseudo_data(tmp_path / "pseudo")
    result = _train(tmp_path, "data.name=none")
    assert result["teacher"] is None
    assert result["student"]["accuracy_last"] is None


def test_a_damaged_shard_is_refused_before_training(folder: Path) -> None:
    path = folder / "pseudo/train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"train-00001-of-00003.parquet is missing or damaged"):
        _train(folder)
