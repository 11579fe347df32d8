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
from ray.exceptions import AuthenticationError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import LoggingConfig

from zskt_dist import logs
from zskt_dist.addresses import learn, passwords
from zskt_dist.config import Config
from zskt_dist.distributed.world import World
from zskt_dist.errors import EXIT_INTERRUPTED, ConfigError, Interrupted, UserError, exit_code
from zskt_dist.files import read_json
from zskt_dist.launch.environment import RAY_PORT, named_ray_cluster, ray_cluster_given, ray_current_cluster, refused
from zskt_dist.launch.mlflow_run import live_tracker
from zskt_dist.launch.ray_agents import end_orphaned_agents
from zskt_dist.launch.signals import InThread, stop_file_on_signal
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import is_uri, join, remove_folder, split
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

log = logging.getLogger(__name__)

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_WATCH_PREEMPTION = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
_PATIENCE_SECONDS = 15.0
"""How long a stop request waits for workers that may be about to start."""
_TOKEN_ADVICE = (
    "set RAY_AUTH_MODE=token, and have the cluster's token in ~/.ray/auth_token or RAY_AUTH_TOKEN "
    "(docs/clusters/README.md)"
)


def launch(job: Job) -> None:
    """Runs the job on the cluster of RAY_ADDRESS, or on a local one started for it.

    Raises:
        UserError: the cluster cannot hold the workers, or they failed more often than allowed.
    """
    config = job.config
    if config.launch.fewest_workers < config.launch.most_workers:
        # For a while after a node is lost, Ray still counts it, and waits for room that is not there.
        os.environ.setdefault(_START_TIMEOUT, "20")
    # Ray Train would turn prints of libraries into INFO records, which are not shown; its workers inherit this.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    with connected() as ours:
        each = check_resources(config)
        if len(_nodes()) == 1 and config.launch.fewest_workers == config.launch.most_workers:
            # A single machine goes as a whole, without notice; and Ray logs an error each time that it starts to watch.
            os.environ.setdefault(_WATCH_PREEMPTION, "0")
        directory = job.directory
        storage = join(directory.location, ".ray")  # Ray checks that every node sees it
        trainer = TorchTrainer(
            partial(_worker, passwords()),  # not in the next line, which Ray shows
            train_loop_config={"job": job.to_dict(), "verbose": logs.verbosity()},
            scaling_config=_scaling(config, each),
            run_config=RunConfig(
                name=f"{directory.path.name}-{secrets.token_hex(4)}",  # new: Ray must not resume from its own state
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
    """Joins the cluster of RAY_ADDRESS or `ray start`, else a local one; yields True if this block disconnects."""
    # All workers import torch at once: on a laptop that can take longer than the minute that Ray allows.
    os.environ.setdefault(_START_TIMEOUT, "300")
    if ray.is_initialized():  # a sweep's trial or a notebook has connected, and will disconnect
        yield False
        return
    address = _address()
    if address == "local" or not ray_cluster_given():  # nobody reads the metrics
        os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    end_orphaned_agents()
    try:
        ray.init(address, logging_level="error")
    except AuthenticationError as error:
        raise UserError(f"{error.message.rstrip('.')}; {_TOKEN_ADVICE}") from None
    except ConnectionError as error:  # something answers there that is not Ray, or that asks for a token
        advice = f"correct RAY_ADDRESS; if `ray start` has crashed, remove {ray_current_cluster()}"
        raise UserError(f"{error}; if the cluster asks for a token, {_TOKEN_ADVICE}; else {advice}") from error
    try:
        yield True
    finally:
        ray.shutdown()


def _address() -> str | None:
    """Address of the cluster to join; None: Ray finds or starts one. Ray would try a dead cluster for minutes.

    Raises:
        UserError: the cluster of RAY_ADDRESS does not answer.
    """
    named = named_ray_cluster()
    if named is None or (error := refused(named[0], RAY_PORT)) is None:
        return None
    address, by_user = named
    if by_user:
        advice = "start that cluster, correct the address, or unset RAY_ADDRESS to start one here"
        raise UserError(f"the Ray cluster of RAY_ADDRESS, {address}, does not answer ({error}); {advice}")
    problem = "the Ray cluster that `ray start` started at %s does not answer (%s): another one is started here"
    log.warning(problem, address, error)
    return "local"


def cpus_per_worker(config: Config) -> int:
    return config.launch.cpus_per_worker or 1


def check_resources(config: Config) -> dict[str, int]:
    """CPUs and GPUs that each worker takes of a node.

    Raises:
        ConfigError: the nodes are too small or too few for the fewest workers, and Ray would wait for ever.
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
    """Number of workers that fit into the cluster's nodes; each worker runs on one node."""
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
        leave_at_once: Leave as soon as a worker has saved and left its failure: Ray gives a stopped job three seconds,
            and its actors end with this process anyway.
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
    if fit.failure and "set up cluster storage" in str(fit.failure):
        problem = "is not seen by all nodes of the cluster; name a folder that they share, or a URI, s3://bucket/runs"
        raise ConfigError("runs_dir", split(split(directory.location)[0])[0], problem) from None
    if fit.failure:
        raise UserError(f"Ray Train gave up: {_last_line(fit.failure)}") from fit.failure


def _wait(fit: InThread, directory: RunDirectory, *, leave_at_once: bool) -> None:
    """Waits for the end of `fit`, or for a failure to leave at; raises Interrupted where a stop finds no workers."""
    requested: float | None = None
    while not fit.ended(within=0.2):
        if leave_at_once and (read_json(directory.failure) or {}).get("interrupted"):
            return
        if requested is None and directory.stop.exists():
            requested = time.monotonic()
            # The store passes the stop request on to rank 0 on another machine.
            directory.mirror.attempt(partial(directory.mirror.send, directory.stop.name))
        late = requested is not None and time.monotonic() - requested > _PATIENCE_SECONDS
        if late and _nobody_works_in(directory):
            directory.raise_failure()
            raise Interrupted(0, 0)  # workers still wait for room in the cluster


def _end_process(code: int) -> None:
    """Ends this process at once: Ray still works in its thread and would crash a regular exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _nobody_works_in(directory: RunDirectory) -> bool:
    """True if no worker holds the run's lock; False for a run in a store, whose lock is not seen here."""
    if is_uri(directory.location):
        return False
    held = directory.try_lock()
    if held is None:
        return False
    held.close()
    return True


def _worker(known: dict[str, str], values: dict[str, Any]) -> None:
    """Runs one rank; Ray has set up the process group."""
    learn(known)
    logs.set_up(values["verbose"], who=f"rank {ray.train.get_context().get_world_rank()}")
    logs.adopt("torch")
    job = Job.from_dict(values["job"])
    torch.set_num_threads(cpus_per_worker(job.config))
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    world = World.current(device)
    log.info("worker %d of %d on %s, %d thread(s)", world.rank + 1, world.size, device, torch.get_num_threads())
    with live_tracker(job, world) as tracker:
        # The check is a barrier of all workers. A single machine goes as a whole, so it does without the check.
        # Rank 0 counts the nodes for all workers, because nodes may be joining.
        preempted = _preempted if world.broadcast(len(_nodes()) > 1) else None
        Worker(job, world, tracker=tracker, preempted=preempted).run_for_driver()


def _preempted() -> bool:
    """True if Ray knows that a node of this run's workers is being drained (a spot instance is reclaimed)."""
    return ray.train.get_preemption_info() is not None


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
