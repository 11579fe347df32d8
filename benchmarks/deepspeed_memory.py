"""Memory of a worker that trains a network with Adam: DDP, and each stage of ZeRO, on two workers (gloo, CPU).

`python -m benchmarks.deepspeed_memory --json FILE` takes some minutes. Counted are the tensors that a process holds
(storages, each once) right after a backward pass, with the optimizer's state of an earlier step, and between steps;
beside them how much the process's resident memory has grown since before the network was made.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import multiprocessing

from zskt_dist.engine import DDPEngine, Engine
from zskt_dist.engine.deepspeed import DeepSpeedEngine, Zero
from zskt_dist.models import ImageShape, build_network, count_parameters

WORKERS, STEPS, BATCH = 2, 3, 2
SHAPE = ImageShape(3, 8, 8)  # activations are not what is measured
MODES: dict[str, Zero | None] = {"ddp": None} | {f"deepspeed, stage {stage}": Zero(stage) for stage in range(4)}


@dataclass(frozen=True)
class Held:
    """Bytes on one worker."""

    after_backward: int
    between_steps: int
    resident: int
    """Growth of the resident set, right after the last backward pass."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="wrn-16-8")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    os.environ["DS_ACCELERATOR"] = "cpu"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deepspeed", "zskt_dist.engine.deepspeed", __spec__.name])  # imported once
    measured = {
        mode: [held for _ in range(options.repetitions) for held in _workers(context, options.arch, mode)]
        for mode in MODES
    }
    parameters = count_parameters(build_network(options.arch, SHAPE, 10))
    answer = {
        "arch": options.arch,
        "parameters": parameters,
        "workers": WORKERS,
        "n": WORKERS * options.repetitions,
        "torch": torch.__version__,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "held": {mode: [asdict(each) for each in helds] for mode, helds in measured.items()},
    }
    _show(measured, options.arch, parameters)
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


def _workers(context: ForkServerContext, arch: str, mode: str) -> list[Held]:
    """Fresh processes, one for each worker."""
    with tempfile.TemporaryDirectory() as folder:
        answers = context.SimpleQueue()
        processes = [
            context.Process(target=_worker, args=(rank, folder, arch, mode, answers)) for rank in range(WORKERS)
        ]
        for process in processes:
            process.start()
        held = [answers.get() for _ in processes]
        for process in processes:
            process.join()
    return held


def _worker(rank: int, folder: str, arch: str, mode: str, answers: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS)
    _measure("lenet", mode)  # what is imported or set up once is not counted
    answers.put(_measure(arch, mode))
    dist.barrier()
    dist.destroy_process_group()


def _measure(arch: str, mode: str) -> Held:
    gc.collect()
    tensors, resident = _tensors(), _resident()
    engine = _engine(arch, MODES[mode])
    for step in range(STEPS):
        engine.backward(engine(torch.randn(BATCH, *SHAPE)).square().mean())
        if step == STEPS - 1:
            after_backward, grown = _tensors() - tensors, _resident() - resident
        engine.update()
    return Held(after_backward, _tensors() - tensors, grown)


def _engine(arch: str, zero: Zero | None) -> Engine:
    torch.manual_seed(0)
    network = build_network(arch, SHAPE, 10)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    if zero is None:
        return DDPEngine(network, adam, lambda _: 1.0, clip_norm=5.0)
    return DeepSpeedEngine(network, adam, lambda _: 1.0, clip_norm=5.0, zero=zero)


def _tensors() -> int:
    """Bytes of all storages that Python can reach."""
    gc.collect()
    storages = {}
    for tensor in [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]:
        for part in (tensor, tensor.grad if tensor.is_leaf else None):
            if part is not None:
                storage = part.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _show(measured: dict[str, list[Held]], arch: str, parameters: int) -> None:
    table = Table(title=f"{arch}, {parameters:,} parameters, {WORKERS} workers: bytes per parameter on one worker")
    for column in ("engine", "after backward", "between steps", "resident memory grown by"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for mode, helds in measured.items():
        columns = ([getattr(held, name) for held in helds] for name in ("after_backward", "between_steps", "resident"))
        table.add_row(mode, *(_range(bytes_ / parameters for bytes_ in column) for column in columns))
    Console().print(table)


def _range(values: Iterable[float]) -> str:
    """The median, and the range where it shows."""
    numbers = sorted(values)
    low, high = f"{numbers[0]:.1f}", f"{numbers[-1]:.1f}"
    return f"{median(numbers):.1f}" + (f" ({low} to {high})" if low != high else "")


if __name__ == "__main__":
    main()
