"""Launching on this machine: this process, several local ones, or the ranks torchrun started."""

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous as find_store
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from zskt_dist import logs
from zskt_dist.addresses import learn, passwords
from zskt_dist.distributed.world import World
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.launch.devices import threads_per_worker, worker_device
from zskt_dist.launch.environment import torchrun_rank
from zskt_dist.launch.mlflow_run import live_tracker
from zskt_dist.launch.signals import stop_file_on_signal
from zskt_dist.runs.checkpoints import CheckpointStore, iteration_of
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.base import Files
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

log = logging.getLogger(__name__)

_GROUPS = itertools.count()
"""Process groups of this process so far: several seeds make one after the other, in the same order on every rank."""
_RENDEZVOUS_PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others: rank 0 may still upload the previous run."""


def launch(job: Job, files: Files | None = None) -> None:
    """Runs the job to its end; raises the error that a worker has for the user. Under torchrun every rank calls this.

    Args:
        files: Weights that have been read already, for a worker in this process.
    """
    if torchrun_rank():
        with _group(job, "env://", int(os.environ.get("LOCAL_RANK", "0")), files) as worker:
            worker.run()
    elif job.config.launch.most_workers == 1:
        with _leaving_groups(), _single(job, worker_device(job.config, local_rank=0), files or {}) as worker:
            worker.run()
    else:
        _spawn(job)


def _spawn(job: Job) -> None:
    """Starts one process per worker; when one fails, the others are ended."""
    directory = job.directory
    with tempfile.TemporaryDirectory() as folder, stop_file_on_signal(directory.stop):
        workers = start_processes(
            _child,
            (job.config.launch.most_workers, f"file://{folder}/rendezvous", job.to_dict(), passwords()),
            nprocs=job.config.launch.most_workers,
            join=False,
            start_method="spawn",
        )
        try:
            while not workers.join(timeout=1):
                pass
        except (ProcessExitedException, ProcessRaisedException) as error:
            directory.raise_failure()
            if directory.stop.exists():
                raise Interrupted(_saved(directory), job.config.iterations) from None
            raise UserError(f"a worker ended unexpectedly: {str(error).strip()}") from None
        except BaseException:
            for process in workers.processes:
                process.kill()
            raise
    directory.raise_failure()


def _saved(directory: RunDirectory) -> int:
    """Iteration of the newest checkpoint, from which the same command continues; 0 where there is none."""
    newest = CheckpointStore(directory.checkpoints).newest()
    return iteration_of(newest) if newest else 0


def _child(rank: int, size: int, rendezvous: str, values: dict[str, Any], known: dict[str, str]) -> None:
    learn(known)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    logs.set_up()
    with _group(Job.from_dict(values), rendezvous, rank) as worker:
        worker.run_for_driver()


@contextmanager
def _group(job: Job, rendezvous: str, local_rank: int, files: Files | None = None) -> Iterator[Worker]:
    """A worker of a process group; rank and size are in the environment."""
    device = worker_device(job.config, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(find_store(rendezvous, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])))
    store.set_timeout(_RENDEZVOUS_PATIENCE)
    # torchrun's store outlives a group: without a prefix the next group would find the addresses of the last one.
    store = dist.PrefixStore(f"group-{next(_GROUPS)}", store)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        with _single(job, device, files or {}) as worker:
            yield worker
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _leaving_groups() -> Iterator[None]:
    """Destroys the process group at the end; DeepSpeed makes one even for one worker."""
    joined = dist.is_initialized()
    try:
        yield
    finally:
        if dist.is_initialized() and not joined:
            dist.destroy_process_group()


@contextmanager
def _single(job: Job, device: torch.device, files: Files) -> Iterator[Worker]:
    logs.adopt("torch")
    torch.set_num_threads(threads_per_worker(job.config))
    world = World.current(device)
    log.info("worker %d of %d on %s, %d thread(s)", world.rank + 1, world.size, device, torch.get_num_threads())
    with live_tracker(job, world) as tracker:
        yield Worker(job, world, tracker=tracker, files=files)
