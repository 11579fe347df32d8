"""Launching on Ray Train V2: a TorchTrainer whose workers run the same `Worker` as everywhere.

Ray starts the processes and their group, and starts them again when one fails. What a run is and
how far it got lives in its run directory, so Ray's own storage holds nothing that could be lost.
"""

import atexit
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import LoggingConfig

from zskt_dist import logs
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.errors import EXIT_INTERRUPTED, ConfigError, Interrupted, UserError, exit_code
from zskt_dist.files import read_json
from zskt_dist.launch.environment import RAY_CURRENT_CLUSTER, RAY_PORT, named_ray_cluster, ray_cluster_given, refused
from zskt_dist.launch.mlflow_run import live_tracker
from zskt_dist.launch.signals import InThread, stop_file_on_signal
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import is_uri, join, remove_folder
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

log = logging.getLogger(__name__)

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_PATIENCE_SECONDS = 15.0
"""How long a stop request waits for workers that may be about to start."""


def launch(job: Job) -> None:
    """Runs the job on the cluster of RAY_ADDRESS, or on a local one started for it.

    Raises:
        UserError: the cluster cannot hold the workers, or they failed more often than allowed.
    """
    config = job.config
    if config.launch.fewest_workers < config.launch.most_workers:
        # For a while after a node is lost, Ray counts it in, and waits for room that is not there.
        os.environ.setdefault(_START_TIMEOUT, "20")
    # Ray Train would make INFO records of what libraries print, which are not shown; it hands this on to the workers.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    with connected() as ours:
        each = check_resources(config)
        directory = job.directory
        storage = join(directory.location, ".ray")  # Ray checks that every node sees it
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"job": job.to_dict(), "verbose": logs.verbosity()},
            scaling_config=_scaling(config, each),
            run_config=RunConfig(
                name=f"{directory.path.name}-{secrets.token_hex(4)}",  # new: Ray must not resume by a state of its own
                storage_path=storage,
                # Ray's own notes are in its log files; the driver shows the progress of the run.
                logging_config=LoggingConfig(log_level="ERROR"),
                failure_config=FailureConfig(max_failures=config.launch.allowed_failures),
            ),
        )
        try:
            _fit(trainer, directory, leave_at_once=ours)
        finally:
            remove_folder(storage)


@contextmanager
def connected() -> Iterator[bool]:
    """Within a cluster: that of RAY_ADDRESS or of `ray start`, else a local one; whether we leave it with the block."""
    # Workers import torch at the same time: on a laptop that can take longer than Ray's minute.
    os.environ.setdefault(_START_TIMEOUT, "300")
    if ray.is_initialized():  # a sweep's trial, or a notebook: whoever connected will disconnect
        yield False
        return
    address = _address()
    if (
        address == "local" or not ray_cluster_given()
    ):  # on one machine nobody reads the metrics, and no node is taken away
        os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        ray.init(address, logging_level="error")
    except ConnectionError as error:  # somebody answers, but not as Ray does
        advice = f"correct RAY_ADDRESS, or where `ray start` has crashed, rm {RAY_CURRENT_CLUSTER}"
        raise UserError(f"{error}; {advice}") from error
    try:
        yield True
    finally:
        ray.shutdown()


def _address() -> str | None:
    """Where Ray is to look for a cluster; None: where it does by itself. It asks a dead one for minutes.

    Raises:
        UserError: the cluster of RAY_ADDRESS does not answer.
    """
    named = named_ray_cluster()
    if named is None or (error := refused(named[0], RAY_PORT)) is None:
        return None
    address, by_user = named
    if by_user:
        advice = "start that cluster or correct the address, or unset RAY_ADDRESS and one is started here"
        raise UserError(f"the Ray cluster of RAY_ADDRESS, {address}, does not answer ({error}); {advice}")
    log.warning("what `ray start` began at %s does not answer (%s): another one is started here", address, error)
    return "local"


def cpus_per_worker(config: Config) -> int:
    return config.launch.cpus_per_worker or 1


def check_resources(config: Config) -> dict[str, int]:
    """What each worker takes of a node.

    Raises:
        ConfigError: the cluster's nodes are too small or too few for the fewest workers; Ray would wait for ever.
    """
    workers, each = config.launch.fewest_workers, {"CPU": cpus_per_worker(config)}
    with_gpu = each | {"GPU": 1}
    if config.device == "cuda" or (config.device == "auto" and workers_that_fit(with_gpu) >= workers):
        each = with_gpu
    possible = workers_that_fit(each)
    if possible < workers:
        has = ray.cluster_resources()
        needs = " and ".join(f"{workers * amount} {name}s ({amount} each)" for name, amount in each.items())
        raise ConfigError(
            "launch.workers",
            workers,
            f"needs {needs}, the Ray cluster has {' and '.join(f'{int(has.get(name, 0))} {name}s' for name in each)} "
            f"on {len(_nodes())} node(s); "
            + (f"at most launch.workers={possible} fit" if possible else "lower launch.cpus_per_worker, or device=cpu"),
        )
    return each


def workers_that_fit(each: dict[str, int]) -> int:
    """Workers that fit into the nodes there are; a worker lies on one node."""
    return sum(min(int(node.get(name, 0)) // amount for name, amount in each.items()) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _scaling(config: Config, each: dict[str, int]) -> ScalingConfig:
    launch = config.launch
    elastic = launch.fewest_workers < launch.most_workers
    return ScalingConfig(
        num_workers=(launch.fewest_workers, launch.most_workers) if elastic else launch.most_workers,
        use_gpu="GPU" in each,
        resources_per_worker=dict(each),
        **({"elastic_resize_monitor_interval_s": launch.resize_seconds} if elastic else {}),
    )


def _fit(trainer: TorchTrainer, directory: RunDirectory, *, leave_at_once: bool) -> None:
    """`trainer.fit()` in a thread, so that this one can pass signals on to the workers.

    Args:
        leave_at_once: Once a worker has told why it left, after saving: a job that is stopped has three seconds, and
            its actors end with this process anyway.
    """
    code = EXIT_INTERRUPTED
    with stop_file_on_signal(directory.stop):
        fit = InThread(trainer.fit, "ray-train")
        try:
            _wait(fit, directory, leave_at_once=leave_at_once)
        except (UserError, KeyboardInterrupt) as error:
            code = exit_code(error)
            raise
        finally:
            if leave_at_once and not fit.ended(within=0):
                atexit.register(_end_process, code)
    directory.raise_failure()
    if fit.failure:
        raise UserError(f"Ray Train gave up: {_last_line(fit.failure)}") from fit.failure


def _wait(fit: InThread, directory: RunDirectory, *, leave_at_once: bool) -> None:
    """Until it has ended or need not be waited for; raises Interrupted where nobody is there to hear a stop request."""
    asked: float | None = None
    while not fit.ended(within=0.2):
        if leave_at_once and (read_json(directory.failure) or {}).get("interrupted"):
            return
        if asked is None and directory.stop.exists():
            asked = time.monotonic()
            # In a store it reaches rank 0 on another machine.
            directory.mirror.attempt(partial(directory.mirror.send, directory.stop.name))
        if asked is not None and time.monotonic() - asked > _PATIENCE_SECONDS and _nobody_works_in(directory):
            directory.raise_failure()
            raise Interrupted(0, 0)  # workers wait for room in the cluster, and hear nothing


def _end_process(code: int) -> None:
    """At once: Ray, which still works in its thread, crashes an interpreter that is taken apart."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _nobody_works_in(directory: RunDirectory) -> bool:
    """True if no worker holds the run's lock; in a store that cannot be told."""
    if is_uri(directory.location):
        return False
    held = directory.try_lock()
    if held is None:
        return False
    held.close()
    return True


def _worker(values: dict[str, Any]) -> None:
    """One rank; Ray has set up the process group."""
    logs.set_up(values["verbose"], who=f"rank {ray.train.get_context().get_world_rank()}")
    logs.adopt("torch")
    job = Job.from_dict(values["job"])
    torch.set_num_threads(cpus_per_worker(job.config))
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    world = World.current(device)
    log.info("worker %d of %d on %s, %d thread(s)", world.rank + 1, world.size, device, torch.get_num_threads())
    with live_tracker(job, world) as tracker:
        # The question is a barrier of all workers: on one machine, which goes as a whole, it is not asked.
        # Rank 0 says for all whether it is one, for nodes may be joining.
        preempted = _preempted if world.broadcast(len(_nodes()) > 1) else None
        Worker(job, world, tracker=tracker, preempted=preempted).run_for_driver()


def _preempted() -> bool:
    """True if Ray has been told that a node of this run's workers is drained (a spot instance is reclaimed)."""
    return ray.train.get_preemption_info() is not None


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
