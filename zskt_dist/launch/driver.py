"""From a configuration to a result: what happens around the workers, once per command."""

import logging
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from zskt_dist.config import Config
from zskt_dist.errors import Interrupted
from zskt_dist.launch import local
from zskt_dist.launch.environment import is_follower
from zskt_dist.launch.plan import problems
from zskt_dist.launch.progress import watching
from zskt_dist.launch.record import close_record, open_record
from zskt_dist.report.figures import draw_evaluation, draw_run
from zskt_dist.runtime.directory import RunDirectory
from zskt_dist.runtime.job import Job
from zskt_dist.tracking.mlflow import RunAddress

log = logging.getLogger(__name__)


def execute(
    command: str, config: Config, *, fresh: bool, console: Console, group: RunAddress | None = None
) -> dict[str, Any]:
    """Runs a command to its end, or continues it, and returns its result; {} on torchrun's other ranks.

    Args:
        group: MLflow run that the run's own is nested under.

    Raises:
        UserError: something the user asked for cannot be done.
        Interrupted: asked to stop; the same command continues.
    """
    job = Job.plan(command, config)
    directory = RunDirectory(job.directory)
    if is_follower():
        local.launch(job)
        return {}
    for problem in problems(job):
        raise problem
    with directory.driven():
        directory.mirror.pull(checkpoints=False)
        if fresh and (aside := directory.move_aside()):
            console.print(f"The earlier run is kept as {aside}")
        directory.begin(command, config, job.teacher_weights)
        job = open_record(replace(job, git_commit=_git_commit()), group)
        directory.mirror.push()
        _run(job, directory, console)
        job.push()
    result = directory.finished()
    assert result, "a launcher that returns has finished the run"
    return result


def evaluate(directory: RunDirectory, config: Config, console: Console) -> None:
    """Measures a finished run and adds the answer to its directory and its MLflow run.

    Args:
        config: The run's own, but for how it is measured and where.

    Raises:
        UserError: something is missing; Interrupted: asked to stop, the same command continues.
    """
    job = Job.evaluation(directory.path, config)
    if is_follower():
        local.launch(job)
        return
    for problem in problems(job):
        raise problem
    with directory.driven():
        directory.clear_requests()
        try:
            with watching(directory.progress, console):
                _launch(job)
        finally:
            directory.clear_requests()
        directory.mirror.pull(checkpoints=False)  # the workers may have been on other machines
        _draw(directory)
        if directory.tracking.exists():
            close_record(job, "FINISHED")
        job.push()


def _run(job: Job, directory: RunDirectory, console: Console) -> None:
    directory.clear_requests()
    status = "FAILED"
    try:
        with watching(directory.progress, console):
            _launch(job)
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


def _launch(job: Job) -> None:
    if job.config.launch.kind == "ray":
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


def _git_commit() -> str | None:
    """Of the code that runs; None where it is not run from a checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
