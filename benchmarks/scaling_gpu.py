"""What the model says of GPUs that nobody has measured here: every number of `ASSUMED` is an assumption."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scaling_model import Cluster, Compute, Link, Setting
from benchmarks.subject import PAIR, configured, zero_shot_task
from zskt_dist.distributed.world import World
from zskt_dist.models import count_parameters

COUNTS = tuple(2**power for power in range(10))
SHOWN = (1, 8, 64, 512)

ASSUMED = {
    "flop_per_second": (15e12, "float32 with TF32 products; small channels reach a few per cent of an H100's peak"),
    "seconds_per_kernel": (3e-6, "shortest time of a kernel in a CUDA graph, launched singly about 5e-6"),
    "node": (8, "GPUs that NVLink joins, as in a DGX H100"),
    "nvlink_bandwidth": (360e9, "of 450e9 bytes/s in each direction in the data sheet of NVLink 4, 80 %"),
    "nvlink_hop": (4e-6, "an all-reduce of few bytes on 8 GPUs then takes 24e-6 s, the order that nccl-tests prints"),
    "infiniband_bandwidth": (40e9, "of 50e9 bytes/s of an NDR adapter (400 Gbit/s) for each GPU, 80 %"),
    "infiniband_hop": (6e-6, "a switch, an adapter on each side, and NCCL's proxy thread"),
}


class Work(NamedTuple):
    """What an iteration is, on any device."""

    flop_per_image: float
    kernels: int
    generator_bytes: int
    student_bytes: int


class _Kernels(TorchDispatchMode):
    """Counts the operators that compute: about one kernel each."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **kwargs or {})


def work(*overrides: str, pair: Sequence[str] = PAIR, batch: int = 2) -> Work:
    """Counted in an iteration of a few images; uncompiled, as those who count see operators only."""
    config = configured(f"batch_size={batch}", "speed.compile=false", *overrides, pair=pair)
    task = zero_shot_task(config, World(torch.device("cpu")))
    task.step(0)  # the optimizers make their state
    with FlopCounterMode(display=False) as flop:
        task.step(1)
    with _Kernels() as kernels:
        task.step(2)
    sizes = {name: 4 * count_parameters(engine.raw) for name, engine in task.engines.items()}
    return Work(flop.get_total_flops() / batch, kernels.count, sizes["generator"], sizes["student"])


def cluster() -> Cluster:
    value = {name: number for name, (number, _) in ASSUMED.items()}
    inside = Link(value["nvlink_hop"], value["nvlink_bandwidth"])
    return Cluster(inside, Link(value["infiniband_hop"], value["infiniband_bandwidth"]), int(value["node"]))


def compute(one: Work) -> Compute:
    flop_per_second, seconds_per_kernel = (ASSUMED[name][0] for name in ("flop_per_second", "seconds_per_kernel"))
    return Compute(one.kernels * seconds_per_kernel, one.flop_per_image / flop_per_second)


def settings(shipped: Work, fresh: Work, student_steps: int = 10) -> list[Setting]:
    """The shipped setting, and what to change where it stops scaling."""
    each_step = (shipped.generator_bytes, *[shipped.student_bytes] * student_steps)
    once = (shipped.generator_bytes, shipped.student_bytes)
    ours = compute(shipped)
    return [
        Setting("as shipped: batch 128", ours, 128, each_step),
        Setting("batch 4096", ours, 4096, each_step),
        Setting("batch 128 on each GPU", ours, 128, each_step, per_worker=True),
        Setting("batch 4096, students averaged once an iteration", ours, 4096, once),
        Setting("batch 4096, `fresh` batches", compute(fresh), 4096, each_step),
    ]


def table_rows(chosen: Sequence[Setting], gpus: Cluster) -> list[dict[str, Any]]:
    return [
        {
            "setting": setting.name,
            "milliseconds": {n: 1e3 * setting.seconds(gpus, n) for n in SHOWN if setting.images(n) >= 1},
            "speedup": {n: setting.speedup(gpus, n) for n in SHOWN if setting.images(n) >= 1},
            "communication_share": {
                n: setting.communication(gpus, n) / setting.seconds(gpus, n) for n in SHOWN if setting.images(n) >= 1
            },
            "half_efficient_up_to": setting.largest(gpus, 0.5, COUNTS),
        }
        for setting in chosen
    ]
