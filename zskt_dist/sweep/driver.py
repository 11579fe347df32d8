"""Running a sweep: Ray Tune starts the trials, each a Ray Train run; every trial's state outlives the driver.

A trial is a run like any other, found again by its settings. So a repeated command needs nothing
of Tune's own records: finished trials are left alone, others continue from their checkpoints.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from rich.console import Console

from zskt_dist import logs
from zskt_dist.errors import ConfigError, Interrupted, UserError
from zskt_dist.launch.preflight import preflight
from zskt_dist.launch.ray import check_resources, connected, cpus_per_worker, workers_that_fit
from zskt_dist.launch.signals import InThread, stop_file_on_signal
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import absolute, is_uri, join, remove_folder
from zskt_dist.runs.result import SweepResult
from zskt_dist.sweep.record import open_parent
from zskt_dist.sweep.space import Sweep, Trial
from zskt_dist.sweep.states import read_states
from zskt_dist.sweep.summary import conclude
from zskt_dist.sweep.trial import TrialRun, scored
from zskt_dist.sweep.watch import Watch
from zskt_dist.tracking.base import is_evaluation
from zskt_dist.tracking.local import read_history
from zskt_dist.tracking.mlflow.store import RunAddress, tracking_uri
from zskt_dist.training.job import Job

log = logging.getLogger(__name__)

_MAX_FAILURES = 3
"""How often a trial whose process has died is started again; it goes on from the last checkpoint of its run."""
_STOP_SECONDS = 120.0
"""How long trials that are asked to stop may take to save."""


def run_sweep(sweep: Sweep, trials: Sequence[Trial], *, fresh: bool, console: Console) -> SweepResult:
    """Runs, continues or looks up every trial, and returns the sweep's result.

    Raises:
        UserError: something a trial needs is missing, the cluster is too small, or every trial failed.
        Interrupted: asked to stop; the same command continues.
    """
    directory = sweep_directory(sweep, trials)
    for trial in trials:
        preflight(Job.plan("train", trial.config))
    with directory.driven():
        directory.mirror.pull()
        if fresh and (aside := directory.move_aside()):
            console.print(f"The earlier sweep is kept as {aside}; runs of trials are used again")
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.clear_requests()
        # In a store, what became of the trials must be there should this machine be lost.
        with directory.mirror.following():
            parent = open_parent(directory, sweep, trials[0].config)
            read_states(directory, trials)
            directory.mirror.push_soon()
            if not all(trial.ended for trial in trials):
                _run(sweep, trials, directory, parent, console)
        result = conclude(sweep, trials, directory, parent)
        directory.mirror.push()
        if directory.stop.exists():
            raise Interrupted(result["finished"] + result["stopped"], len(trials), "trial")
    if result["finished"] == 0:
        first = next((trial.message for trial in trials if trial.message), "see the lines above")
        raise UserError(f"no trial of {directory.path} has finished; the first one said: {first}")
    return result


def sweep_directory(sweep: Sweep, trials: Sequence[Trial]) -> RunDirectory:
    """Beside the runs of its trials."""
    config = trials[0].config
    return RunDirectory(absolute(join(config.runs_dir, config.experiment, f"sweep-{sweep.name}")))


def _run(
    sweep: Sweep, trials: Sequence[Trial], directory: RunDirectory, parent: RunAddress | None, console: Console
) -> None:
    os.environ |= {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a configuration are relative to where the sweep was started
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # runs keep their own history
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # how a trial ended is a result without scores
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    storage = join(directory.location, ".tune")
    begun_first = sorted(trials, key=lambda trial: trial.starts == 0)
    todo = [trial for trial in begun_first if not trial.ended]
    with connected():
        concurrent = _concurrent_trials(sweep, todo)
        console.print(f"{len(todo)} trials, {concurrent} at a time, in {directory.path}", soft_wrap=True)
        _warn_of_one_file(parent, len(ray.nodes()))
        _check_sight(sweep, directory, len(ray.nodes()))
        watch = Watch(trials, directory, console)
        with watch.bar, stop_file_on_signal(directory.stop):
            tuner = tune.Tuner(
                tune.with_resources(TrialRun, {"memory": 1}),  # a driver takes no CPU from its workers
                param_space={"trial": tune.grid_search([_order(trial, directory, parent) for trial in todo])},
                tune_config=tune.TuneConfig(scheduler=_scheduler(sweep, trials), max_concurrent_trials=concurrent),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=storage,
                    verbose=0,
                    callbacks=[watch],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    # Of a trial's own process, with its node: a run that fails is no failure to Tune.
                    failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                ),
            )
            try:
                _fit(tuner, directory.stop, watch)
            finally:
                remove_folder(storage)


def _fit(tuner: tune.Tuner, stop: Path, watch: Watch) -> None:
    """`tuner.fit()` in a thread, so that this one hears signals; trials see the file `stop` that they leave.

    Trials on machines that share no disk with this one do not; they go on from their last checkpoints.
    """
    fit = InThread(tuner.fit, "ray-tune")
    while not fit.ended(within=0.2) and not stop.exists():
        watch.show_life(time.monotonic())
    fit.ended(within=_STOP_SECONDS)
    if fit.failure:
        raise UserError(f"Ray Tune gave up: {fit.failure}; the same command goes on") from fit.failure


def _order(trial: Trial, directory: RunDirectory, parent: RunAddress | None) -> dict[str, Any]:
    """What `TrialRun` gets; the store by name, for workers of a cluster have another environment."""
    config = trial.config
    uri = parent.tracking_uri if parent else tracking_uri(config.tracking.uri) or "none"
    tracking = config.tracking.model_copy(update={"uri": uri})
    evaluate = trial.evaluate
    if evaluate is not None and len(ray.nodes()) == 1 and not ray.cluster_resources().get("GPU"):
        # The workers will have left, and their room will still be this trial's: it is measured right there.
        cores = config.launch.fewest_workers * cpus_per_worker(config)
        evaluate = [*evaluate, "launch.kind=local", "launch.workers=1", f"launch.cpus_per_worker={cores}"]
    return {
        "number": trial.number,
        "config": config.model_copy(update={"tracking": tracking}).model_dump(mode="json"),
        "evaluate": evaluate,
        "sweep": directory.path.name,
        "swept": list(trial.settings),
        "folder": str(Path.cwd()),
        "stop": str(directory.stop),
        "verbose": logs.verbosity(),
    }


def _concurrent_trials(sweep: Sweep, trials: Sequence[Trial]) -> int:
    """Trials that fit into the cluster at a time.

    Raises:
        ConfigError: not even one does; Ray would wait for ever.
    """
    # An elastic trial counts with its most workers, for it takes them; one alone may have fewer.
    fits = max(1, min(workers_that_fit(check_resources(t.config)) // t.config.launch.most_workers for t in trials))
    if sweep.concurrent is not None and sweep.concurrent > fits:
        raise ConfigError("sweep.concurrent", sweep.concurrent, f"the cluster has room for {fits} trials at a time")
    return sweep.concurrent or min(fits, len(trials))


class Rungs(AsyncHyperBandScheduler):
    """ASHA that begins with what trials reported before; it stops none for that: it was decided when it was new."""

    def __init__(self, trials: Sequence[Trial], **settings: Any) -> None:
        super().__init__(time_attr="iteration", mode="max", **settings)
        for trial in trials:
            trial.run.mirror.pull(checkpoints=False)
            before = SimpleNamespace(trial_id=trial.number)
            super().on_trial_add(None, before)
            for row in filter(is_evaluation, read_history(trial.run.history)):
                self.on_trial_result(None, before, scored(row))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """What it reported before stands under its number; Tune has another name for it each time."""
        super().on_trial_add(tune_controller, trial)
        number = trial.config["trial"]["number"]
        for _, recorded in self._brackets[0]._rungs:
            if number in recorded:
                recorded[trial.trial_id] = recorded.pop(number)


def _scheduler(sweep: Sweep, trials: Sequence[Trial]) -> TrialScheduler:
    if sweep.scheduler == "all":
        return FIFOScheduler()
    longest = max(trial.config.iterations for trial in trials) + 1  # at the last iteration runs end by themselves
    metric = "score" if sweep.select_by == "label_free_score" else sweep.select_by
    return Rungs(trials, metric=metric, max_t=longest, grace_period=sweep.grace, reduction_factor=sweep.reduction)


def _check_sight(sweep: Sweep, directory: RunDirectory, nodes: int) -> None:
    """ASHA must see the evaluations of runs, in their `progress.json`, which goes to no store.

    Raises:
        ConfigError: the workers of a trial may be on another machine than the process that drives it.
    """
    if sweep.scheduler == "asha" and is_uri(directory.location) and nodes > 1:
        raise ConfigError(
            "sweep.scheduler",
            "asha",
            f"cannot follow trials on {nodes} machines whose runs_dir is a URI; use a folder that all machines share, "
            "or sweep.scheduler=all",
        )


def _warn_of_one_file(parent: RunAddress | None, nodes: int) -> None:
    if parent and parent.tracking_uri.startswith("sqlite") and nodes > 1:
        log.warning(
            "%s is a file on this machine and the cluster has %d: trials elsewhere cannot write to it. Start "
            "`mlflow server` where all reach it and set tracking.uri",
            parent.tracking_uri,
            nodes,
        )
