"""Teachers of the user's own code that come with their weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.distributed import Ranks
from zskt_dist.config import Config, load_config
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape, LeNet
from zskt_dist.networks.brought import with_digest
from zskt_dist.networks.building import read_network
from zskt_dist.networks.weights import digest_of
from zskt_dist.tasks.stages import identity, run_directory, stages

GRAY = ImageShape(1, 8, 8)
MINE = "tests.support.user_networks"
ARCH = f"{MINE}:Brought"


def _write(path: Path, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    weights = LeNet(image_size=(8, 8)).state_dict()
    save_file(weights, path)
    return weights


def _config(folder: Path, *overrides: str) -> Config:
    """With `teacher.checkpoint=none`."""
    given = [f"teacher.arch={ARCH}", f"teacher.options.path={folder / 'own.safetensors'}", "teacher.checkpoint=none"]
    return load_config(None, [*given, *overrides])


def _read(config: Config, world: World | None = None) -> Any:
    return read_network(config, "teacher", GRAY, 10, str(config.teacher.checkpoint), "teacher.checkpoint", world)


def test_the_network_is_taken_as_it_comes(tmp_path: Path) -> None:
    weights = _write(tmp_path / "own.safetensors")
    network = _read(with_digest(_config(tmp_path)))
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_runs_depend_on_the_weights_and_train_no_teacher(tmp_path: Path) -> None:
    seen = set()
    for command in ("train", "distill", "finetune"):
        for seed in (0, 1):
            _write(tmp_path / "own.safetensors", seed)
            config = _config(tmp_path, "teacher.seed=3")
            found = stages(command, config)
            assert all(stage.task.role == "student" for stage in found)
            assert found[-1].hash == identity(command, config)
            assert found[-1].run == str(run_directory(config, command).path.absolute())
            assert found[-1].inputs["teacher"] == found[-1].config.teacher.checkpoint
            seen.add(found[-1].hash)
    assert len(seen) == 6
    assert run_directory(config, "pretrain").path.parent.name == "teachers"  # which needs no teacher


def test_the_digest_is_of_names_types_shapes_and_numbers() -> None:
    one = torch.nn.Linear(2, 2)
    digest = digest_of(one)
    assert digest_of(torch.nn.Sequential(one)) != digest
    assert digest_of(one.double()) != digest
    assert digest_of(one.float()) == digest
    with torch.no_grad():
        one.weight[0, 0] += 1
    assert digest_of(one) != digest


def test_other_weights_than_the_run_began_with(tmp_path: Path) -> None:
    _write(tmp_path / "own.safetensors")
    config = with_digest(_config(tmp_path))
    assert with_digest(config) is config
    _write(tmp_path / "own.safetensors", 1)
    with pytest.raises(ConfigError, match=r"^teacher.checkpoint='none:[0-9a-f]{16}': .* comes with other weights now"):
        _read(config)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["teacher.arch=lenet"],
            "is for package.module:callable that loads its own weights, and lenet is made without",
        ),
        (["teacher.arch=torchvision:resnet18"], "and torchvision:resnet18 is made without; name a file of weights"),
        ([f"teacher.arch={MINE}:Plain"], r"draws fc\.weight at random, and so is not trained; load all weights"),
        (["teacher.options.untrained=fc3.weight"], r"draws fc3\.weight at random"),
        (["teacher.options.path=broken.safetensors"], "weights that are not finite, first in fc1.bias"),
    ],
)
def test_networks_without_trained_weights(
    tmp_path: Path, overrides: list[str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = _write(tmp_path / "own.safetensors")
    weights["fc1.bias"][2] = float("nan")
    save_file(weights, "broken.safetensors")
    own = [] if overrides[0].startswith("teacher.options") else ["teacher.options={}"]
    with pytest.raises(ConfigError, match=rf"^teacher\.checkpoint='none': .*{problem}"):
        stages("train", _config(tmp_path, *own, *overrides))


def test_a_prefix_needs_a_file() -> None:
    for checkpoint in ("null", "none"):
        with pytest.raises(ConfigError, match=r"^teacher.prefix='net.': is of the names in a file; say which"):
            load_config(None, ["teacher.prefix=net.", f"teacher.checkpoint={checkpoint}"])


def _bias(world: World, values: dict[str, Any]) -> Tensor:
    return _read(Config.model_validate(values), world).fc3.bias.detach()


def test_every_worker_has_the_weights_of_rank_0(tmp_path: Path, two_ranks: Ranks) -> None:
    weights = _write(tmp_path / "own.safetensors")
    config = with_digest(_config(tmp_path, "teacher.options.per_rank=true"))
    for bias in two_ranks.run(_bias, config.model_dump()):
        assert torch.equal(bias, weights["fc3.bias"])
