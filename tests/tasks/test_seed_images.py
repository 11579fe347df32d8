"""Images of the user that a pool starts with: kept, told, part of the run, and refused where there is no room."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.configs import tiny_overrides
from tests.support.inversions import SMALL, inversion_config, inversion_training
from tests.support.jobs import train_in
from zskt_dist.commands import train
from zskt_dist.errors import ConfigError
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.stages import identity


def test_the_pool_starts_with_the_images_of_the_user_and_a_resumed_run_wants_the_same(tmp_path: Path) -> None:
    seed = torch.arange(2 * 64, dtype=torch.uint8).view(2, 1, 8, 8)
    config = inversion_config(tmp_path, "inversion.seed_images=mine")
    task = inversion_training(config, folder=tmp_path / "pool", seed=seed)
    task.step(0)
    assert torch.equal(task.pool.newest()[:2], seed)
    assert len(task.pool) > 2
    again = inversion_training(config, folder=tmp_path / "pool", seed=seed)
    again.load(task.state())
    assert torch.equal(again.pool.newest(), task.pool.newest())
    for x, y in zip(again.pool(1), task.pool(1), strict=True):
        assert torch.equal(x, y)
    with pytest.raises(ConfigError, match=r"inversion\.seed_images='mine': does not hold the images .*--fresh"):
        inversion_training(config, folder=tmp_path / "pool", seed=seed + 1).load(task.state())


def test_a_run_that_saw_images_of_the_user_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for value in range(3):
        Image.fromarray(np.full((8, 8), 50 * value, dtype=np.uint8)).save(folder / f"{value}.png")
    result = train_in("train", inversion_config(tmp_path, f"inversion.seed_images={folder}")).finished()
    assert result is not None
    assert result["seed_images"]["images"] == 3
    assert len(result["seed_images"]["sha256"]) == 64
    with pytest.raises(ConfigError, match=r"nowhere'.*no such file or folder"):
        train_in("train", inversion_config(tmp_path, f"inversion.seed_images={tmp_path}/nowhere", "name=other"))


def test_other_images_in_the_folder_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "0.png")
    words = [*tiny_overrides(tmp_path, *SMALL, f"inversion.seed_images={folder}", "name=seeded", "launch.kind=local")]
    assert train.main(words) == 0
    assert train.main(words) == 0, "finished earlier"
    (folder / ".hidden").write_text("of a file manager")
    assert train.main(words) == 0
    Image.fromarray(np.full((8, 8), 9, dtype=np.uint8)).save(folder / "1.png")
    assert train.main(words) == 2


def test_one_folder_by_two_names_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, same, other = (
        identity("train", inversion_config(tmp_path, f"inversion.seed_images={name}"))
        for name in ("mine", f"{tmp_path}/mine", "theirs")
    )
    assert one == same != other


def test_more_images_than_the_pool_has_room_for_are_refused(tmp_path: Path) -> None:
    """An image takes 64 bytes, and each of 8 views 21 and ten answers: 552. A MiB holds 1,899 of them."""
    config = inversion_config(tmp_path, "inversion.seed_images=mine", "inversion.pool_mib=1")
    seed = torch.zeros(1900, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=r"has 1,900 images, .* no room; inversion\.pool_mib=2 or more"):
        inversion_training(config, seed=seed)
    assert inversion_training(config, seed=seed[:1899]).seed_images["images"] == 1899


def test_several_seeds_say_that_they_saw_images(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "one.png")
    words = [*tiny_overrides(tmp_path, *SMALL, f"inversion.seed_images={tmp_path}/one.png", "seeds=[0,1]")]
    assert train.main([*words, "launch.kind=local", "name=several"]) == 0
    result = RunDirectory(tmp_path / "runs/digits/several").finished() or {}
    assert result["seed_images"]["images"] == 1
