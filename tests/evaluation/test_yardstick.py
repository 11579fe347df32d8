"""The yardstick: made from the teacher alone, once, the same on two workers, and what students are told by it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from tests.support.jobs import evaluate_in, train_in
from zskt_dist.algorithms.inversion import Weights
from zskt_dist.algorithms.statistics import StatisticsGap
from zskt_dist.config import Config
from zskt_dist.data import Standardise, open_dataset
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError
from zskt_dist.evaluation import yardstick as yardsticks
from zskt_dist.evaluation.estimates import YARDSTICK
from zskt_dist.evaluation.image_sources import normal_noise
from zskt_dist.evaluation.yardstick import Recipe, Yardstick, agreements, find_or_make, identity
from zskt_dist.launch.evaluate import measured_config
from zskt_dist.models import ImageShape, ReadLogits, build_network
from zskt_dist.tracking.local import read_history

ALONE = World(torch.device("cpu"))
SHAPE = ImageShape(1, 8, 8)
STATISTICS = (0.3,), (0.4,)
SHORT = Recipe(images=20, batch=8, steps=2, warm_up=1, z_dim=5, channels=(8, 4))


def _teacher(seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("wrn-10-1", SHAPE, 10).eval().requires_grad_(False)


def _make(world: World, folder: Path | None = None, recipe: Recipe = SHORT) -> Tensor:
    found = find_or_make(folder, _teacher(), SHAPE, 10, STATISTICS, world, recipe=recipe)
    assert found is not None
    return found.images


def test_two_workers_make_the_images_of_one(two_ranks: Ranks) -> None:
    """Up to the rounding of their sums, which a byte shows only at its edge."""
    alone = _make(ALONE)
    assert alone.shape == (20, 1, 8, 8)
    assert alone.dtype == torch.uint8
    first, second = two_ranks.run(_make)
    assert torch.equal(first, second)
    assert (first.int() - alone.int()).abs().max() <= 1


def test_it_depends_on_the_teacher_and_the_recipe_and_on_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = _make(ALONE)
    torch.manual_seed(2)
    assert torch.equal(_make(ALONE), first)
    names = {
        identity(_teacher(), STATISTICS, SHORT),
        identity(_teacher(4), STATISTICS, SHORT),
        identity(_teacher(), ((0.2,), (0.4,)), SHORT),
        identity(_teacher(), STATISTICS, replace(SHORT, steps=3)),
    }
    switched = _teacher()
    vars(switched)["transform_input"] = True
    names.add(identity(switched, STATISTICS, SHORT))
    inner = nn.Sequential(_teacher())
    others = [identity(inner, STATISTICS, SHORT)]
    vars(inner[0])["transform_input"] = True
    others.append(identity(inner, STATISTICS, SHORT))
    for output in ("0", "1"):
        named = _teacher()
        named.register_forward_hook(ReadLogits(10, output))
        others.append(identity(named, STATISTICS, SHORT))
    assert len(names | set(others)) == 9
    assert identity(_teacher(), STATISTICS, SHORT) in names


def test_it_is_made_once_and_again_where_the_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = _make(ALONE, tmp_path)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(yardsticks, "make", lambda *args: pytest.fail("made again"))
        assert torch.equal(_make(ALONE, tmp_path), first)
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(_make(ALONE, tmp_path), first)
    assert "is damaged" in caplog.text


def test_its_images_are_nearer_to_the_training_images_than_noise(tmp_path: Path) -> None:
    """The teacher has seen digits, and remembers only their statistics."""
    images = open_dataset(tiny_config(tmp_path)).train.images[:200]
    standardise = Standardise(*STATISTICS, torch.device("cpu"))
    torch.manual_seed(3)
    teacher = build_network("wrn-10-1", SHAPE, 10).requires_grad_(False)
    for layer in teacher.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean
    teacher(standardise(images))
    teacher.eval()
    recipe = replace(SHORT, images=64, batch=32, steps=10, warm_up=20, channels=(16, 8), weights=Weights(labels=0))
    found = find_or_make(None, teacher, SHAPE, 10, STATISTICS, ALONE, recipe=recipe)
    assert found is not None
    noise = torch.randint(0, 256, found.images.shape, dtype=torch.uint8)
    distance = [StatisticsGap(teacher)(standardise(each))[1].item() for each in (images, found.images, noise)]
    assert distance[0] < distance[1] < distance[2] / 2


def test_a_teacher_without_statistics_has_none() -> None:
    lenet = build_network("lenet", SHAPE, 10).eval()
    assert find_or_make(None, lenet, SHAPE, 10, STATISTICS, ALONE) is None


class _First(nn.Module):
    """Class 0 or 1 by the first pixel."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        above = (x[:, 0, 0, 0] > self.threshold).float()
        return torch.stack([1 - above, above], dim=1)


def test_where_it_cannot_be_kept_a_warning_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "yardsticks").write_text("a file, where the folder should be")
    assert len(_make(ALONE, tmp_path / "yardsticks")) == 20
    assert "the yardstick cannot be kept" in caplog.text


def test_what_another_run_has_written_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials that begin together have one yardstick, though theirs may differ by rounding."""
    make, theirs = yardsticks.make, []

    def slowly(*args: Any) -> Tensor:
        monkeypatch.setattr(yardsticks, "make", make)
        theirs.append(_make(ALONE, tmp_path))
        return 255 - make(*args)

    monkeypatch.setattr(yardsticks, "make", slowly)
    assert torch.equal(_make(ALONE, tmp_path), theirs[0])


def test_a_teacher_whose_answers_are_not_finite_is_refused() -> None:
    teacher = _teacher()
    next(teacher.parameters()).data.fill_(math.nan)
    with pytest.raises(UserError, match="the yardstick cannot be made: the teacher's answers are not finite"):
        find_or_make(None, teacher, SHAPE, 10, STATISTICS, ALONE, recipe=SHORT)


def test_agreement_is_counted_over_all_images(tmp_path: Path) -> None:
    """Of pixels 0 to 9, thresholds of 2.5 and 5.5 part three."""
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    plain = Standardise((0.0,), (1 / 255,), torch.device("cpu"))
    source = Yardstick(images).source(plain, torch.device("cpu"))
    config = tiny_config(tmp_path, "batch_size=4")
    row = agreements(config, [source], _First(2.5), _First(5.5), ALONE)
    assert row == {"yardstick_agreement": pytest.approx(0.7)}
    assert agreements(config, [], _First(2.5), _First(5.5), ALONE) == {}


def test_agreement_on_noise_is_told_where_noise_is_asked_for(tmp_path: Path) -> None:
    """Of pixels from N(0, 1), as many lie between 0 and 0.6745 as a quarter; 256 draws have a deviation of .027."""
    noise = normal_noise(ImageShape(1, 1, 1), torch.device("cpu"))
    networks = _First(0.0), _First(0.6745)
    row = agreements(tiny_config(tmp_path, "evaluation.held_out_images=256"), [noise], *networks, ALONE)
    assert row == {"noise_agreement": pytest.approx(0.75, abs=0.1)}
    assert agreements(tiny_config(tmp_path, "evaluation.held_out_images=0"), [noise], *networks, ALONE) == {}


def test_noise_lies_where_images_do() -> None:
    """Pixels in [0, 255] less 127.5 have a deviation of 255 sqrt(1 / 12) if they are spread evenly."""
    noise = normal_noise(ImageShape(1, 9, 9), torch.device("cpu"), ((0.5,), (1 / 255,)))
    assert noise.draw is not None
    drawn = noise.draw(np.random.default_rng(0), 200)
    assert drawn.std().item() == pytest.approx(255 / 12**0.5, rel=0.03)
    assert drawn.mean().item() == pytest.approx(0, abs=3)


def _config(folder: Path, *overrides: str) -> Config:
    return tiny_config(folder, "teacher.arch=wrn-10-1", "evaluation.yardstick=true", "name=run", *overrides)


@pytest.mark.parametrize("method", ["belief_matching", "inversion"])
def test_a_run_tells_its_agreement_on_the_way_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    made: list[Any] = []
    make = yardsticks.make

    def counted(*args: Any) -> Tensor:
        made.append(args)
        return make(*args[:-1], SHORT)

    monkeypatch.setattr(yardsticks, "make", counted)
    few = ("inversion.rounds=2", "inversion.images=4", "inversion.steps=1", "inversion.warm_up=0")
    directory = train_in("train", _config(tmp_path, f"method={method}", *few))
    result = directory.finished() or {}
    assert result["method"] == method
    found = result["yardstick"]
    assert found["images"] == 20
    assert 0 <= found["low"] <= found["agreement"] <= found["high"] <= 1
    assert result["estimates"]["sources"][YARDSTICK]["agreement"] == found["agreement"]
    assert next(iter(result["estimates"]["sources"])) == YARDSTICK, "the best number comes first"
    rows = read_history(directory.history)
    assert [row["iteration"] for row in rows if "yardstick_agreement" in row] == [4, 8, 10]
    assert rows[-1]["yardstick_agreement"] == pytest.approx(found["agreement"])

    another = train_in("train", _config(tmp_path, "name=another", "seed=1", "teacher.seed=0"))
    half = train_in("train", _config(tmp_path, "name=half", "teacher.seed=0", "engine.teacher=bfloat16"))
    monkeypatch.chdir(tmp_path.parent)  # from where the run's relative `runs_dir` is another folder
    evaluate_in(another.path, measured_config(another, ["runs_dir=runs"]))
    for run in (another, half):
        assert (run.finished() or {})["yardstick"]["sha256"] == found["sha256"]
    assert len(made) == 1, "one for all students of the teacher"
    assert measured_config(directory, []).evaluation.yardstick
