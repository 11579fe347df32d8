"""From a configuration to a result: what happens around the workers, once per command."""

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from zskt_dist.config import Config
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.evaluation.evaluated_run import EvaluatedRun
from zskt_dist.extras import is_installed
from zskt_dist.launch import local
from zskt_dist.launch.environment import git_commit, is_follower
from zskt_dist.launch.mlflow_run import close_record, mark_partial, open_record, repair_record
from zskt_dist.launch.patience import patience
from zskt_dist.launch.preflight import describe, preflight
from zskt_dist.launch.progress import announce, watching
from zskt_dist.runs.directory import Differs, RunDirectory, open_run
from zskt_dist.runs.locations import absolute
from zskt_dist.tasks.base import Files
from zskt_dist.tasks.stages import Stage, absolute_paths, absolute_weights, pinned
from zskt_dist.training.job import Job

log = logging.getLogger(__name__)


def execute(
    command: str,
    config: Config,
    *,
    fresh: bool,
    console: Console,
    group: str | None = None,
    differs: Differs | None = None,
) -> dict[str, Any]:
    """Runs or continues a command to its end and returns its result; {} on torchrun's other ranks.

    Args:
        group: Name of the directory, beside this one, of the several seeds or the sweep that the run belongs to.
        differs: What its name in MLflow says beside pair and method.

    Raises:
        UserError: the command cannot be done.
        Interrupted: a stop was requested; the same command continues.
    """
    config = pinned(command, config)
    job = Job.plan(command, config)
    if is_follower():
        local.launch(job)
        return {}
    checked = preflight(job)
    with open_run(job.goal.run, fresh=fresh, announce=console.print) as directory:
        announce(command, describe(checked), console)
        goal, digests = job.goal, checked.digests
        teacher = goal.inputs.get("teacher")
        directory.begin(command, config, teacher, task=goal.name, group=group, differs=differs, files=digests)
        job = open_record(replace(job, git_commit=git_commit(), digests=digests))
        directory.mirror.push()
        _run(job, checked.files, directory, console)
        job.push()
    result = directory.finished()
    assert result, "a launcher that returns has finished the run"
    return result


def evaluation_job(measurement: EvaluatedRun) -> Job:
    """The job of one stage that measures a finished run."""
    config, location = absolute_paths(measurement.config), absolute(measurement.directory.location)
    weights = {role: absolute_weights(path) for role, path in measurement.weights.items()}
    return Job((Stage("evaluate", config, location, "", inputs=weights),), config.launch.kind)


def evaluate(measurement: EvaluatedRun, *, fresh: bool, console: Console) -> None:
    """Measures a finished run and adds the answer to its directory and its MLflow run.

    Raises:
        UserError: something is missing; Interrupted: a stop was requested, the same command continues.
    """
    job = evaluation_job(measurement)
    if is_follower():
        local.launch(job)
        return
    checked = preflight(job)
    patience.begin(job.config.tracking.patience)
    with open_run(job.goal.run) as directory:
        announce("evaluate", [("run directory", job.goal.run)], console)
        if fresh:
            measurement.discard_parts()
        if measurement.is_own:
            mark_partial(directory)
        _work(job, checked.files, directory, console)
        directory.mirror.pull(checkpoints=False)  # the workers may have been on other machines
        if measurement.is_own:
            _draw(directory)
            if directory.tracking.exists():
                close_record(job, "FINISHED")
        else:
            _write_page(directory)
        job.push()


def synthesize(stage: Stage, console: Console) -> None:
    """Makes the missing shards of pseudo-data; raises the same errors as `evaluate`."""
    job = Job((stage,), stage.config.launch.kind)
    if is_follower():
        local.launch(job)
        return
    checked = preflight(job)
    with open_run(stage.run) as directory:
        announce("synthesize", [("run directory", stage.run)], console)
        _work(job, checked.files, directory, console)


def complete_evaluation(measurement: EvaluatedRun, answer: dict[str, Any]) -> None:
    """Completes result, figures and MLflow where a command was killed after measuring."""
    directory = measurement.directory
    if not measurement.is_own:
        return
    published = (directory.finished() or {}).get("mte") == answer["mte"]
    if published and _is_drawn(directory) and not directory.record_is_partial():
        return
    with suppress(UserError), directory.driven():  # else: the command that is working on the run will do it
        measurement.publish(answer)
        _draw(directory)
    if directory.record_is_partial():
        repair_record(directory, measurement.config.tracking.uri)
    directory.mirror.push()


def _run(job: Job, files: Files, directory: RunDirectory, console: Console) -> None:
    status = "FAILED"
    try:
        _work(job, files, directory, console)
        status = "FINISHED"
        left = [name for name, comes in (("figures", is_installed("matplotlib")), ("MLflow", job.tracking)) if comes]
        if left:
            console.print(f"Trained; what is left: {' and '.join(left)}")
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        directory.mirror.attempt(partial(directory.mirror.pull, checkpoints=False))
        if status != "KILLED":  # a stopped job may have only seconds; the command that continues draws
            _draw(directory)
        close_record(job, status)
        directory.mirror.attempt(directory.mirror.push)


def _work(job: Job, files: Files, directory: RunDirectory, console: Console) -> None:
    """Starts the workers and waits for their end."""
    try:
        with watching(directory.progress, console):
            _launch(job, files, console)
    finally:
        directory.clear_requests()


def _launch(job: Job, files: Files, console: Console) -> None:
    if job.config.launch.kind == "ray":
        console.print(f"Starting Ray and up to {job.config.launch.most_workers} worker(s); this takes half a minute")
        from zskt_dist.launch import ray

        ray.launch(job)
    else:
        local.launch(job, files)


def _is_drawn(directory: RunDirectory) -> bool:
    """True if the page and the figures of an evaluation are newer than its answer, or cannot be drawn here."""
    answer = directory.evaluation / "evaluation.json"
    files = (directory.figures / "calibration.png", directory.page)
    drawn = all(file.exists() and file.stat().st_mtime_ns >= answer.stat().st_mtime_ns for file in files)
    return drawn or not is_installed("matplotlib")


def _draw(directory: RunDirectory) -> None:
    """Draws the figures and writes the page; an error is only a warning, so that it does not hide how the run ended."""
    try:
        from zskt_dist.figures.run import draw_evaluation, draw_run  # late: matplotlib takes a second

        draw_run(directory)
        draw_evaluation(directory)
    except Exception as error:
        log.warning("figures of %s were not drawn: %s", directory.path, error)
    _write_page(directory)


def _write_page(directory: RunDirectory) -> None:
    from zskt_dist.page.write import update_page

    update_page(directory)
