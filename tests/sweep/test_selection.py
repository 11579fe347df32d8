"""Students are compared on one pool of images: the score of each is the agreement counted source by source."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.support.configs import tiny_config
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.files import write_json
from zskt_dist.networks.building import load_trained, unexamined_network
from zskt_dist.networks.weights import read_weights
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.streams import Purpose, normal, stream
from zskt_dist.sweep.selection import pooled_agreement
from zskt_dist.sweep.space import Trial
from zskt_dist.sweep.table import compares_teachers, trial_row
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunDirectory]:
    folder = tmp_path_factory.mktemp("pool")
    directories = []
    for name, *overrides in (("a",), ("b", "iterations=2", "evaluation.snapshots=1")):
        job = Job.plan("train", tiny_config(folder, f"name={name}", "teacher.seed=0", *overrides))
        directory = job.directory
        directory.begin("train", job.config, job.goal.inputs.get("teacher"))
        Worker(job, ALONE).run()
        directories.append(directory)
    return directories


def _predictions(run: RunDirectory, role: str, x: torch.Tensor) -> np.ndarray:
    config = run.read_config()
    assert config
    path = run.weights("student") if role == "student" else run.teacher_weights()
    assert path
    return np.array([int(load_trained(config, role, Path(path))[0](image[None]).argmax()) for image in x])


def test_noise_alone_is_counted_image_by_image(runs: list[RunDirectory], tmp_path: Path) -> None:
    """Without snapshots the pool is noise."""
    run = runs[0]
    hidden = run.snapshots.rename(tmp_path / "hidden")
    try:
        scores = pooled_agreement([run], 24, seed=3)
    finally:
        hidden.rename(run.snapshots)
    noise = torch.from_numpy(normal(stream(3, Purpose.HELD_OUT, 0, 0, 1), 24, 1, 8, 8))
    expected = (_predictions(run, "student", noise) == _predictions(run, "teacher", noise)).mean()
    assert scores == {str(run.path): pytest.approx(expected)}


def test_all_are_judged_on_the_images_of_all(runs: list[RunDirectory]) -> None:
    alone, together = pooled_agreement(runs[:1], 480), pooled_agreement(runs, 480)
    assert set(together) == {str(run.path) for run in runs}
    assert together[str(runs[0].path)] != alone[str(runs[0].path)], "the other's generator has joined the pool"
    assert pooled_agreement(runs, 480) == together
    assert all(0 <= score <= 1 for score in together.values())


@pytest.mark.parametrize("name", ["mine.pt", "mine.safetensors"])
def test_a_teacher_of_other_origin_is_compared_with(runs: list[RunDirectory], tmp_path: Path, name: str) -> None:
    """Its file says nothing of images and classes."""
    told, path, expected = json.loads(runs[0].begun.read_text()), tmp_path / name, pooled_agreement(runs[:1], 48)
    weights = dict(read_weights(Path(told["teacher"]), ""))
    torch.save(weights, path) if path.suffix == ".pt" else save_file(weights, path)
    write_json(runs[0].begun, told | {"teacher": str(path)})
    try:
        assert pooled_agreement(runs[:1], 48) == expected
    finally:
        write_json(runs[0].begun, told)


def test_one_network_is_held_at_a_time_and_a_teacher_read_once(
    runs: list[RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs have one teacher; as many copies as trials would not fit on a GPU."""
    networks: list[weakref.ref[nn.Module]] = []
    roles = []

    def build(config: Config, role: str, *shape: Any) -> nn.Module:
        gc.collect()
        assert not any(earlier() for earlier in networks)
        network = unexamined_network(config, role, *shape)
        networks.append(weakref.ref(network))
        roles.append(role)
        return network

    monkeypatch.setattr("zskt_dist.networks.building.unexamined_network", build)
    assert len(pooled_agreement(runs, 48)) == 2
    assert sorted(roles) == ["student", "student", "teacher"]


def test_teachers_are_told_apart_by_their_weights(runs: list[RunDirectory]) -> None:
    """Both runs learnt from the teacher of seed 0; where one is, is no matter."""
    table = _table(runs)
    assert table["teacher_weights"].notna().all()
    assert not compares_teachers(table)
    told = json.loads(runs[1].begun.read_text())
    other = Path(told["teacher"]).with_name("other.safetensors")
    try:
        for content, different in ((Path(told["teacher"]).read_bytes(), False), (b"another", True)):
            other.write_bytes(content)
            write_json(runs[1].begun, told | {"teacher": str(other)})
            assert compares_teachers(_table(runs)) == different
    finally:
        write_json(runs[1].begun, told)


def _table(runs: list[RunDirectory]) -> pd.DataFrame:
    rows = []
    for number, run in enumerate(runs):
        config = run.read_config()
        assert config
        trial = Trial(number, {"seed": number}, config, None, "finished")
        vars(trial)["run"] = run  # wherever it lies now
        rows.append(trial_row(trial, {}))
    return pd.DataFrame(rows)


def test_a_run_whose_teacher_is_gone_has_no_score(runs: list[RunDirectory], tmp_path: Path) -> None:
    config = runs[0].read_config()
    assert config
    orphan = RunDirectory(tmp_path / "orphan")
    orphan.begin("train", config, str(tmp_path / "gone.safetensors"))
    assert pooled_agreement([orphan], 48) == {}
