"""How much memory zero-shot transfer takes, from its configuration alone.

The task itself runs an iteration over fake tensors, which have a shape and no content, while the bytes that would be
allocated are added up. So micro-batches, recomputed activations and the precision count as they do in training, and
so does memory that is held only for a moment.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any
from unittest import mock

import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    unset_fake_temporarily,
)
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zskt_dist.config import Config
from zskt_dist.data.pool import image_bytes
from zskt_dist.data.unlabelled import count_unlabelled
from zskt_dist.distributed.world import World
from zskt_dist.engine import Engine
from zskt_dist.engine.building import in_bfloat16
from zskt_dist.errors import UserError
from zskt_dist.models import ImageShape, is_own
from zskt_dist.networks.building import new_network
from zskt_dist.tasks.inversion import InversionTraining
from zskt_dist.tasks.transfer import TransferTraining


@dataclass(frozen=True)
class Memory:
    """Bytes that one worker's tensors take, without the process, CUDA's context and what libraries set aside.

    Attributes:
        teacher: Parameters and running statistics.
        student: Parameters, statistics, gradients and the state of the optimizer.
        generator: Parameters, statistics, gradients and the state of the optimizer.
        generator_step: Peak of a generator step on top of the networks, most of it activations.
        student_step: Peak of a student step on top of the networks, with the pseudo-batch and the teacher's logits.
        pool: Images of an inversion.
    """

    teacher: int
    student: int
    generator: int
    generator_step: int
    student_step: int
    pool: int = 0

    @property
    def networks(self) -> int:
        """Bytes that are held all the time."""
        return self.teacher + self.student + self.generator + self.pool

    @property
    def activations(self) -> int:
        """Peak on top of the networks."""
        return max(self.generator_step, self.student_step)

    @property
    def total(self) -> int:
        """The peak."""
        return self.networks + self.activations


def estimate_memory(config: Config, image_shape: ImageShape, num_classes: int) -> Memory:
    """Estimates the memory of the worker with the largest share of the batch.

    Takes a second or a few. Compiled networks and recorded CUDA graphs are counted as plain ones.

    Raises:
        ConfigError: the networks cannot be built, or do not pair.
        UserError: a network of the user or of a library computes with values, which fake tensors do not have.
    """
    try:
        return _estimate(config, image_shape, num_classes)
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException) as error:
        raise UserError(f"cannot be estimated: the code of a network needs the values of tensors ({error})") from None


def _estimate(config: Config, image_shape: ImageShape, num_classes: int) -> Memory:
    share = math.ceil(config.batch_size / config.launch.fewest_workers)
    simulated = _images_to_simulate(share, config.engine.micro_batch)
    # Images that are not simulated take only the pseudo-batch itself and the logits of both networks.
    waiting = (share - simulated) * 4 * (math.prod(image_shape) + 2 * num_classes)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, _everything_in_place(), _Watch() as watch:
        teacher, student = (
            _fake_network(mode, config, role, image_shape, num_classes) for role in ("teacher", "student")
        )
        teacher = teacher.eval().requires_grad_(False)
        if config.engine.teacher == "bfloat16":
            teacher = in_bfloat16(teacher)
        walk = _invert if config.method == "inversion" else _match
        networks = teacher, student, image_shape, num_classes
        sizes = walk(_one_iteration(config, simulated), *networks, watch)
    sizes["student_step"] += waiting
    return Memory(teacher=_size(chain(teacher.parameters(), teacher.buffers())), **sizes)


def _match(
    config: Config, teacher: nn.Module, student: nn.Module, shape: ImageShape, num_classes: int, watch: "_Watch"
) -> dict[str, int]:
    """Sizes from an iteration of Algorithm 1, by the names of `Memory`."""
    task = TransferTraining(config, teacher, student, shape, World(torch.device("cpu")))
    for name, engine in task.engines.items():
        _take_a_step(engine)
        engine.optimizer.register_step_post_hook(partial(watch.close, name))
    fixed = watch.begin()
    task.transfer.step(task.noise(0))
    trained = {name: _trained_size(engine.raw, engine.optimizer) for name, engine in task.engines.items()}
    return {**trained, **{f"{name}_step": watch.peaks[name] - fixed for name in trained}}


def _invert(
    config: Config, teacher: nn.Module, student: nn.Module, shape: ImageShape, num_classes: int, watch: "_Watch"
) -> dict[str, int]:
    """Sizes from a step of an inversion's generator and one of its student."""
    statistics = (0.5,) * shape.channels, (0.5,) * shape.channels
    world, inversion = World(torch.device("cpu")), config.inversion
    task = InversionTraining(config, teacher, student, shape, num_classes, statistics, world)
    inverter = task.inverter
    _take_a_step(task.engine)
    for parameter in inverter.generator.parameters():
        parameter.grad = torch.zeros_like(parameter)
    inverter.optimizer.step()
    fixed = watch.begin()
    with task.frozen_student() as ask:
        batch = task.draw(0, 0)
        inverter.make(batch._replace(shifts=batch.shifts[:1]), ask)
    watch.close("generator")
    x = torch.zeros(config.batch_size, *shape)
    task.matching.step(x, task.ask(x))
    watch.close("student")
    images = inversion.rounds * inversion.images_of_round
    if inversion.seed_images is not None:
        images += count_unlabelled(inversion.seed_images)
    return {
        "student": _trained_size(task.engine.raw, task.engine.optimizer),
        "generator": _trained_size(inverter.generator, inverter.optimizer),
        "generator_step": watch.peaks["generator"] - fixed,
        "student_step": watch.peaks["student"] - fixed,
        "pool": min(int(inversion.pool_mib * 2**20), images * image_bytes(shape, num_classes, inversion.views)),
    }


def _images_to_simulate(share: int, micro_batch: int | None) -> int:
    """Images in two micro-batches: more of them would hold no more activations."""
    count = math.ceil(share / (micro_batch or share))
    return min(share, 2 * math.ceil(share / count))


def _one_iteration(config: Config, batch_size: int) -> Config:
    """The configuration of one step per network, on one worker of the plain engine, without paths that warm up."""
    changes: dict[str, dict[str, Any]] = {
        "transfer": {"generator_steps": 1, "student_steps": 1},
        "engine": {"kind": "ddp", "batch_norm": "local"},
        "speed": {"compile": False, "cuda_graphs": False, "folded_teacher": False},
    }
    sections = {name: getattr(config, name).model_copy(update=update) for name, update in changes.items()}
    return config.model_copy(update={"batch_size": batch_size, "device": "cpu", **sections})


def _take_a_step(engine: Engine) -> None:
    """Allocates gradients and the state of the optimizer, which exist from the second iteration on."""
    for parameter in engine.raw.parameters():
        parameter.grad = torch.zeros_like(parameter)
    engine.update()


def _trained_size(network: nn.Module, optimizer: Optimizer) -> int:
    gradients = (parameter.grad for parameter in network.parameters() if parameter.grad is not None)
    return _size(chain(network.parameters(), network.buffers(), gradients, _tensors(optimizer.state)))


def _tensors(state: Mapping[Any, Mapping[str, Any]]) -> Iterator[Tensor]:
    return (value for values in state.values() for value in values.values() if isinstance(value, Tensor))


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


class _Watch(TorchDispatchMode):
    """Adds up the storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.peaks: dict[str, int] = {}
        self._seen: set[int] = set()

    def begin(self) -> int:
        """Bytes that are alive now; the peak is counted from here on."""
        self.peak = self.live
        return self.live

    def close(self, phase: str, *_: object) -> None:
        """Notes the peak since the last call as that of `phase`."""
        self.peaks[phase] = self.peak
        self.peak = self.live

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = function(*args, **kwargs or {})
        for leaf in tree_leaves(answer):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return answer

    def _see(self, storage: UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.remove(key)
        self.live -= size


def _fake_network(
    mode: FakeTensorMode, config: Config, role: str, image_shape: ImageShape, num_classes: int
) -> nn.Module:
    """A network of fake tensors; one that is not our own is built with real values, as its code may read them."""
    if is_own(getattr(config, role).arch):
        return new_network(config, role, image_shape, num_classes)
    with unset_fake_temporarily():
        network = new_network(config, role, image_shape, num_classes)
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: mode.from_tensor(each) for name, each in tensors.items() if each is not None})  # type: ignore[misc]
    return network


@contextmanager
def _everything_in_place() -> Iterator[None]:
    """Makes `Module.to` do nothing: it cannot move fake tensors, which are in the right place already."""
    with mock.patch.object(nn.Module, "to", lambda module, *_: module):
        yield
