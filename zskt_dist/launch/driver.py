"""From a configuration to a result: what happens around the workers, once per command."""

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from zskt_dist.config import Config
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.evaluation.evaluated_run import Measurement
from zskt_dist.figures.run import draw_evaluation, draw_run, evaluation_is_drawn
from zskt_dist.launch import local
from zskt_dist.launch.environment import git_commit, is_follower
from zskt_dist.launch.mlflow_run import close_record, mark_partial, open_record, repair_record
from zskt_dist.launch.preflight import Plan, describe, problems
from zskt_dist.launch.progress import announce, watching
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.training.job import Job

log = logging.getLogger(__name__)


def execute(command: str, config: Config, *, fresh: bool, console: Console, group: str | None = None) -> dict[str, Any]:
    """Runs a command to its end, or continues it, and returns its result; {} on torchrun's other ranks.

    Args:
        group: Name of the run directory, beside this one, of the seeds or the sweep that it belongs to.

    Raises:
        UserError: something the user asked for cannot be done.
        Interrupted: asked to stop; the same command continues.
    """
    job = Job.plan(command, config)
    directory = RunDirectory(job.directory)
    if is_follower():
        local.launch(job)
        return {}
    plan = Plan(job, quiet=True)
    for problem in plan.problems():
        raise problem
    with directory.driven():
        announce(command, describe(plan), console)
        directory.mirror.pull(checkpoints=False)
        if fresh and (aside := directory.move_aside()):
            console.print(f"The earlier run is kept as {aside}")
        directory.begin(command, config, job.teacher_weights, group)
        job = open_record(replace(job, git_commit=git_commit()))
        directory.mirror.push()
        _run(job, directory, console)
        job.push()
    result = directory.finished()
    assert result, "a launcher that returns has finished the run"
    return result


def evaluate(measurement: Measurement, *, fresh: bool, console: Console) -> None:
    """Measures a finished run and adds the answer to its directory and its MLflow run.

    Raises:
        UserError: something is missing; Interrupted: asked to stop, the same command continues.
    """
    directory = measurement.directory
    job = Job.evaluation(directory.location, measurement.config)
    if is_follower():
        local.launch(job)
        return
    for problem in problems(job):
        raise problem
    with directory.driven():
        announce("evaluate", [("run directory", job.directory)], console)
        directory.clear_requests()
        if fresh:
            measurement.discard_parts()
        if measurement.is_own:
            mark_partial(directory)
        try:
            with watching(directory.progress, console):
                _launch(job, console)
        finally:
            directory.clear_requests()
        directory.mirror.pull(checkpoints=False)  # the workers may have been on other machines
        if measurement.is_own:
            _draw(directory)
            if directory.tracking.exists():
                close_record(job, "FINISHED")
        job.push()


def synthesize(job: Job, console: Console) -> None:
    """Makes the shards of pseudo-data that are missing; raises as `evaluate`."""
    directory = RunDirectory(job.directory)
    if is_follower():
        local.launch(job)
        return
    for problem in problems(job):
        raise problem
    with directory.driven():
        announce("synthesize", [("run directory", job.directory)], console)
        directory.clear_requests()
        try:
            with watching(directory.progress, console):
                _launch(job, console)
        finally:
            directory.clear_requests()


def complete_evaluation(measurement: Measurement, answer: dict[str, Any]) -> None:
    """What a command that was killed after measuring left undone: result, figures, MLflow."""
    directory = measurement.directory
    if not measurement.is_own:
        return
    told, drawn = (directory.finished() or {}).get("mte") == answer["mte"], evaluation_is_drawn(directory)
    if told and drawn and not directory.record_is_partial():
        return
    with suppress(UserError), directory.driven():  # else: the command that is working on the run will do it
        measurement.publish(answer)
        _draw(directory)
    if directory.record_is_partial():
        repair_record(directory, measurement.config.tracking.uri)
    directory.mirror.push()


def _run(job: Job, directory: RunDirectory, console: Console) -> None:
    directory.clear_requests()
    status = "FAILED"
    try:
        with watching(directory.progress, console):
            _launch(job, console)
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        directory.clear_requests()
        directory.mirror.attempt(partial(directory.mirror.pull, checkpoints=False))
        if status != "KILLED":  # who is asked to stop may have seconds; the command that continues draws
            _draw(directory)
        close_record(job, status)
        directory.mirror.attempt(directory.mirror.push)


def _launch(job: Job, console: Console) -> None:
    if job.config.launch.kind == "ray":
        console.print(f"Starting Ray and up to {job.config.launch.most_workers} worker(s); this takes half a minute")
        from zskt_dist.launch import ray

        ray.launch(job)
    else:
        local.launch(job)


def _draw(directory: RunDirectory) -> None:
    """Figures are a by-product: what keeps them from being drawn must not hide how the run ended."""
    try:
        draw_run(directory)
        draw_evaluation(directory)
    except Exception as error:
        log.warning("figures of %s were not drawn: %s", directory.path, error)
