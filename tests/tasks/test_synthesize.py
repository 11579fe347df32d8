"""Pseudo-data of a run: which images and logits, the same for any number of workers; what is kept and made again."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError, Interrupted, UserError
from zskt_dist.files import read_json, sha256_of
from zskt_dist.models import Generator, ImageShape, build_network
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.streams import Purpose, stream
from zskt_dist.tasks.stages import Stage
from zskt_dist.tasks.synthesize import SynthesisOrder
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))
SOURCES = (3, 6, 9)
BATCH = 7
OVERRIDES = ("iterations=9", "evaluation.snapshots=3", "batch_size=7", "seed=5", "name=run", "evaluation.every=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Config]:
    """A finished tiny run with its configuration, which knows the teacher."""
    config = tiny_config(tmp_path_factory.mktemp("run"), *OVERRIDES, "tracking.images=0")
    job = Job.plan("train", config)
    directory = job.directory
    directory.begin("train", config, job.goal.inputs.get("teacher"))
    Worker(job, ALONE).run()
    teacher = config.teacher.model_copy(update={"checkpoint": job.goal.inputs.get("teacher")})
    return directory, job.config.model_copy(update={"teacher": teacher})


Run = tuple[RunDirectory, Config]


def _make(world: World, run: Run, folder: Path, **order: Any) -> None:
    directory, config = run
    wanted = SynthesisOrder(str(folder), images=50, shard_images=20, sources=SOURCES)
    stage = Stage("synthesize", config, directory.location, "", options=asdict(replace(wanted, **order)))
    Worker(Job.from_dict(Job((stage,), "local").to_dict()), world).run()


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def _columns(folder: Path) -> pa.Table:
    return pq.read_table(sorted(folder.glob("*.parquet"))).replace_schema_metadata(None)


def _by_hand(run: Run, source: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch of that number of a source, and the teacher's logits, from the files of the run."""
    directory, config = run
    generator = Generator(8, (1, 8, 8), (8, 4))
    generator.load_state_dict(load_file(directory.snapshots / f"generator_{source:08d}.safetensors"))
    teacher = build_network("lenet", ImageShape(1, 8, 8), 10)
    teacher.load_state_dict(load_file(str(config.teacher.checkpoint)))
    z = stream(5, Purpose.PSEUDO_DATA, source, number).standard_normal((BATCH, 8), dtype=np.float32)
    with torch.no_grad():
        x = generator.train()(torch.from_numpy(z)).half()
        return x, teacher.eval()(x.float())


def test_images_are_the_generators_and_logits_the_teachers(run: Run, tmp_path: Path) -> None:
    _make(ALONE, run, tmp_path)
    rows = _columns(tmp_path).to_pylist()
    assert [row["index"] for row in rows] == list(range(50))
    assert [row["source"] for row in rows] == [SOURCES[place % 3] for place in range(50)], "in equal shares"
    # 21 images are a round, a batch of 7 of each source.
    for number in range(3):
        for place, source in enumerate(SOURCES):
            x, logits = _by_hand(run, source, number)
            for row in range(BATCH):
                index = 21 * number + 3 * row + place
                if index < 50:
                    assert torch.equal(torch.tensor(rows[index]["pixels"]), x[row].flatten().float())
                    assert torch.equal(torch.tensor(rows[index]["teacher_logits"]), logits[row])
                    assert rows[index]["label"] == logits[row].argmax()


def test_two_workers_make_the_files_that_one_does(run: Run, two_ranks: Ranks, tmp_path: Path) -> None:
    _make(ALONE, run, tmp_path / "one")
    two_ranks.run(_make, run, tmp_path / "two")
    assert len(_files(tmp_path / "one")) == 3
    assert _files(tmp_path / "one") == _files(tmp_path / "two")


def test_images_depend_neither_on_the_shards_nor_on_how_many_there_are(run: Run, tmp_path: Path) -> None:
    _make(ALONE, run, tmp_path / "a")
    _make(ALONE, run, tmp_path / "b", shard_images=9, images=64)
    _make(ALONE, run, tmp_path / "c", shard_images=None)
    assert len(_files(tmp_path / "b")) == 8
    assert len(_files(tmp_path / "c")) == 1
    expected = _columns(tmp_path / "a")
    assert _columns(tmp_path / "b").slice(0, 50).equals(expected)
    assert _columns(tmp_path / "c").equals(expected)


def test_images_of_one_source_are_those_it_has_among_others(run: Run, tmp_path: Path) -> None:
    _make(ALONE, run, tmp_path / "all")
    _make(ALONE, run, tmp_path / "last", sources=SOURCES[-1:], images=16)
    together = _columns(tmp_path / "all").filter(pc.field("source") == 9)
    assert together["pixels"].to_pylist() == _columns(tmp_path / "last")["pixels"].to_pylist()


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [_remove, _truncate, _flip])
def test_only_what_is_missing_or_damaged_is_made_again(run: Run, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    _make(ALONE, run, tmp_path)
    expected = _files(tmp_path)
    first, second, third = sorted(tmp_path.glob("*.parquet"))
    before = [path.stat() for path in (first, third)]
    spoil(second)
    _make(ALONE, run, tmp_path)
    assert _files(tmp_path) == expected
    assert [path.stat() for path in (first, third)] == before


def test_a_stop_leaves_whole_shards_and_the_next_command_makes_the_others(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, _ = run
    monkeypatch.setattr("zskt_dist.distributed.stop_vote._FILE_POLL_SECONDS", 0.0)
    directory.stop.touch()
    with pytest.raises(Interrupted, match=r"^stopped at shard 1 of 3$"):
        _make(ALONE, run, tmp_path / "stopped")
    directory.stop.unlink()
    written = _files(tmp_path / "stopped")
    assert len(written) == 1
    _make(ALONE, run, tmp_path / "stopped")
    _make(ALONE, run, tmp_path / "whole")
    assert _files(tmp_path / "stopped") == _files(tmp_path / "whole")
    assert written.items() <= _files(tmp_path / "whole").items()


def test_other_settings_are_refused_until_asked_to_start_over(run: Run, tmp_path: Path) -> None:
    _make(ALONE, run, tmp_path)
    with pytest.raises(ConfigError, match=r"other settings \(images, generators\); choose another folder, or --fresh"):
        _make(ALONE, run, tmp_path, images=30, sources=(9,))
    before = _files(tmp_path)
    _make(ALONE, run, tmp_path, images=30, sources=(9,), fresh=True)
    assert sorted(_files(tmp_path)) == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert not _files(tmp_path).items() & before.items()


def test_files_of_somebody_else_are_left_alone(run: Run, tmp_path: Path) -> None:
    theirs = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(pa.table({"a": [1]}), theirs)
    for fresh in (False, True):
        with pytest.raises(ConfigError, match=r"--out=.*Parquet files of something else; choose another folder"):
            _make(ALONE, run, tmp_path, fresh=fresh)
    assert pq.read_table(theirs).to_pydict() == {"a": [1]}


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_a_folder_with_a_readme_of_somebody_else_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("theirs")
    for fresh in (False, True):
        with pytest.raises(ConfigError, match=rf"--out=.* holds a {name} of something else; choose another folder"):
            _make(ALONE, run, tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "theirs"


def test_the_files_say_what_they_were_made_from(run: Run, tmp_path: Path) -> None:
    directory, config = run
    _make(ALONE, run, tmp_path)
    about = read_json(tmp_path / "pseudo_data.json")
    snapshots = {str(source): directory.snapshots / f"generator_{source:08d}.safetensors" for source in SOURCES}
    assert about["generators"] == {source: sha256_of(path) for source, path in snapshots.items()}
    assert about["teacher"] == {"arch": "lenet", "sha256": sha256_of(Path(str(config.teacher.checkpoint)))}
    assert (about["image_shape"], about["num_classes"], about["seed"]) == ([1, 8, 8], 10, 5)
    assert (about["mean"], about["std"]) == ([0.3054], [0.376])
    assert (about["method"], about["seed_images"]) == ("belief_matching", None)


def test_a_set_that_an_earlier_version_began_is_completed(run: Run, tmp_path: Path) -> None:
    """It had neither method nor images that were given."""
    _make(ALONE, run, tmp_path)
    expected = _files(tmp_path)
    about = read_json(tmp_path / "pseudo_data.json")
    del about["method"], about["seed_images"]
    (tmp_path / "pseudo_data.json").write_text(json.dumps(about))
    _remove(tmp_path / "train-00001-of-00003.parquet")
    _make(ALONE, run, tmp_path)
    assert _files(tmp_path) == expected


def test_a_generator_that_has_diverged_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "forward", lambda self, z: torch.full((len(z), 1, 8, 8), 1e6))
    with pytest.raises(UserError, match="the generator of iteration 3 draws what is not finite"):
        _make(ALONE, run, tmp_path)
    assert not _files(tmp_path)
