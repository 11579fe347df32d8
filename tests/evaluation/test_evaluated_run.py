"""Whose numbers an evaluation gives: the run's own, or those of other images."""

from pathlib import Path

import pytest

from tests.support.finished import finished_run
from zskt_dist.config import with_overrides
from zskt_dist.evaluation.evaluated_run import EvaluatedRun
from zskt_dist.runs.directory import RunDirectory


@pytest.mark.parametrize(
    ("root", "own"),
    [
        ("here/images", True),
        ("there/images", False),  # another data set, though its folder has the same name
    ],
)
def test_images_of_another_folder_are_other_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, own: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = Path("here/images")
    trained.mkdir(parents=True)
    directory = RunDirectory(
        finished_run(tmp_path, "scratch", 0, 0.8, f"data.root={trained.absolute()}", dataset="parquet")
    )
    config = directory.read_config()
    assert config is not None
    assert EvaluatedRun(directory, with_overrides(config, [f"data.root={root}"])).is_own is own


def test_images_that_have_been_moved_are_the_run_s(tmp_path: Path) -> None:
    directory = RunDirectory(
        finished_run(tmp_path, "scratch", 0, 0.8, f"data.root={tmp_path / 'gone'}", dataset="parquet")
    )
    config = directory.read_config()
    assert config is not None
    assert EvaluatedRun(directory, with_overrides(config, [f"data.root={tmp_path / 'new'}"])).is_own
