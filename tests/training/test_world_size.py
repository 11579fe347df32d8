"""One worker and several do the same training: the noise is global, gradients and norms are of the global batch."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.configs import tiny_config
from tests.support.distributed import Ranks
from tests.support.jobs import context_of
from zskt_dist.config import Config, with_overrides
from zskt_dist.data import open_dataset
from zskt_dist.distributed.world import World
from zskt_dist.networks.building import new_network
from zskt_dist.tasks.supervised import ImageTraining
from zskt_dist.tasks.transfer import IterationNoise, TransferTraining

ITERATIONS = 4
ALONE = World(torch.device("cpu"))

State = dict[str, Tensor]


class _Identity(torch.nn.Module):
    """In place of the generator's batch norm, whose statistics are of each worker's slice."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Doubles:
    """The run's noise in float64."""

    def __init__(self, noise: IterationNoise) -> None:
        self._noise = noise

    def __call__(self, draw: int) -> Tensor:
        return self._noise(draw).double()

    def like(self, x: Tensor, draw: int) -> Tensor:
        return self._noise.like(x, draw)


def _transfer(world: World, folder: Path, mode: str, *overrides: str) -> State:
    """Parameters of student and generator after a few float64 iterations, and the metrics on the way."""
    config = tiny_config(folder, f"transfer.pseudo_batch={mode}", "transfer.generator_steps=2", *overrides)
    dataset = open_dataset(config)
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zskt_dist.models.generator.nn.BatchNorm2d", _Identity)
            shape, classes = dataset.image_shape, dataset.num_classes
            teacher = new_network(config, "teacher", shape, classes).eval().requires_grad_(False)
            task = TransferTraining(config, teacher, new_network(config, "student", shape, classes), shape, world)
            metrics = [task.transfer.step(_Doubles(task.noise(i))) for i in range(ITERATIONS)]
    finally:
        torch.set_default_dtype(torch.float32)
    state = {f"{name}.{key}": value for name, e in task.engines.items() for key, value in e.raw.state_dict().items()}
    numbers = [world.mean(each, task.weight) for each in metrics]
    reported = [[*each["student_gradient_norm"], *each["kl"], *each["teacher_classes"]] for each in numbers]
    return state | {"reported": torch.tensor(reported, dtype=torch.float64)}


def _supervised_task(kind: str, config: Config, world: World) -> ImageTraining:
    dataset = open_dataset(config)
    teacher, student = (new_network(config, role, dataset.image_shape, 10) for role in ("teacher", "student"))
    command = {"teacher": "pretrain", "student": "pretrain"}.get(kind, kind)
    if command == "pretrain":
        config = with_overrides(config, [f"supervised.network={kind}"])
    context = context_of(command, config, dataset, world, teacher=teacher, student=student)
    training = import_module(context.stage.task.module).start(context)
    assert isinstance(training, ImageTraining)
    return training


def _supervised(world: World, folder: Path, kind: str, *overrides: str) -> State:
    config = tiny_config(folder, "data.images_per_class=3", *overrides)
    torch.set_default_dtype(torch.float64)
    try:
        task = _supervised_task(kind, config, world)
        for iteration in range(ITERATIONS):
            x, label = task.batches(iteration)
            task.steps.step(x.double(), label)
    finally:
        torch.set_default_dtype(torch.float32)
    with task.trained() as network:
        return network.state_dict()


def _assert_equal(alone: State, of_ranks: list[State]) -> None:
    for of_rank in of_ranks:
        assert alone.keys() == of_rank.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(of_rank[name], expected, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
def test_transfer_is_the_same_on_one_worker_and_on_two(two_ranks: Ranks, tmp_path: Path, mode: str) -> None:
    _assert_equal(_transfer(ALONE, tmp_path, mode), two_ranks.run(_transfer, tmp_path, mode))


@pytest.mark.parametrize("divergence", ["forward_kl", "squared"])
def test_a_divergence_of_the_users_is_the_same_on_one_worker_and_on_two(
    two_ranks: Ranks, tmp_path: Path, divergence: str
) -> None:
    """With unequal shares, and micro-batches of unequal sizes: values of images, and a mean over them."""
    own = ("post_update", "batch_size=7", f"loss.divergence=tests.support.user_divergences:{divergence}")
    alone = _transfer(ALONE, tmp_path, *own)
    _assert_equal(alone, two_ranks.run(_transfer, tmp_path, *own))
    _assert_equal(alone, two_ranks.run(_transfer, tmp_path, *own, "engine.micro_batch=2"))


TERMS = ("teacher_entropy=0.3", "student_entropy=-0.2", "consistency=0.5")


@pytest.mark.parametrize("augmentation", ["noise", "blur"])
def test_generator_terms_are_the_same_on_one_worker_and_on_two(
    two_ranks: Ranks, tmp_path: Path, augmentation: str
) -> None:
    overrides = [f"generator_terms.{term}" for term in (*TERMS, f"augmentation={augmentation}")]
    alone = _transfer(ALONE, tmp_path, "pre_update", *overrides)
    _assert_equal(alone, two_ranks.run(_transfer, tmp_path, "pre_update", *overrides))
    without = _transfer(ALONE, tmp_path, "pre_update")
    assert not torch.equal(alone["generator.conv1.weight"], without["generator.conv1.weight"])


@pytest.mark.parametrize("kind", ["teacher", "student", "distill", "finetune"])
def test_supervised_training_is_the_same_on_one_worker_and_on_two(two_ranks: Ranks, tmp_path: Path, kind: str) -> None:
    _assert_equal(_supervised(ALONE, tmp_path, kind), two_ranks.run(_supervised, tmp_path, kind))


@pytest.mark.parametrize("mode", ["post_update", "fresh"])
def test_two_workers_share_an_odd_batch(two_ranks: Ranks, tmp_path: Path, mode: str) -> None:
    """Elastic groups come in any size, and the global batch stays what it is."""
    odd = (mode, "batch_size=7")
    _assert_equal(_transfer(ALONE, tmp_path, *odd), two_ranks.run(_transfer, tmp_path, *odd))


@pytest.mark.parametrize("kind", ["teacher", "distill", "finetune"])
def test_two_workers_share_an_odd_supervised_batch(two_ranks: Ranks, tmp_path: Path, kind: str) -> None:
    odd = (kind, "supervised.batch_size=13", "finetune.batch_size=13")
    _assert_equal(_supervised(ALONE, tmp_path, *odd), two_ranks.run(_supervised, tmp_path, *odd))


@pytest.mark.parametrize("mode", ["post_update", "pre_update", "fresh"])
def test_micro_batches_on_one_worker_and_on_two_equal_the_whole_batch(
    two_ranks: Ranks, tmp_path: Path, mode: str
) -> None:
    """9 images on two workers are 4 and 5, in two micro-batches and in three of at most 2."""
    overrides = (mode, "batch_size=9", "generator_terms.consistency=0.5")
    whole = _transfer(ALONE, tmp_path, *overrides)
    micro = (*overrides, "engine.micro_batch=2")
    _assert_equal(whole, [_transfer(ALONE, tmp_path, *micro), *two_ranks.run(_transfer, tmp_path, *micro)])


def test_recomputed_activations_on_two_workers_equal_those_that_are_kept_on_one(
    two_ranks: Ranks, tmp_path: Path
) -> None:
    """Also without exchange, in all micro-batches but the last."""
    recomputed = ("engine.activation_checkpointing=true", "engine.micro_batch=3")
    of_ranks = two_ranks.run(_transfer, tmp_path, "pre_update", *recomputed)
    _assert_equal(_transfer(ALONE, tmp_path, "pre_update"), of_ranks)


@pytest.mark.parametrize(("batch", "size"), [(8, 2), (7, 2), (128, 3), (5, 5), (128, 24)])
def test_slices_cover_the_batch_and_weights_average_to_one(batch: int, size: int) -> None:
    worlds = [World(torch.device("cpu"), rank, size) for rank in range(size)]
    places = [place for world in worlds for place in range(batch)[world.part(batch)]]
    assert places == list(range(batch))
    assert sum(world.weight(batch) for world in worlds) / size == pytest.approx(1)
    lengths = {len(range(batch)[world.part(batch)]) for world in worlds}
    assert max(lengths) - min(lengths) <= 1


def test_learning_moves_the_parameters(tmp_path: Path) -> None:
    """Equality between worlds would also hold if nothing were trained."""
    config = tiny_config(tmp_path)
    before = new_network(config, "student", open_dataset(config).image_shape, 10).state_dict()
    after = _transfer(ALONE, tmp_path, "post_update")
    assert (after["student.network.conv1.weight"] - before["conv1.weight"]).abs().max() > 1e-3
