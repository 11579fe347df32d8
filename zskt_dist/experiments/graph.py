"""Running a graph of experiments: what is finished is skipped, what was interrupted goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from rich.console import Console

from zskt_dist.config import differing_keys
from zskt_dist.config.graph import Graph, Task
from zskt_dist.config.inputs import is_brought
from zskt_dist.errors import EXIT_INTERRUPTED, ConfigError, Interrupted, UserError
from zskt_dist.experiments.seeds import runs_of_seeds
from zskt_dist.launch.named_code import words_for
from zskt_dist.launch.summary import print_runs
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import local_folder, split
from zskt_dist.tasks.stages import run_directory
from zskt_dist.training.job import Job

# How a command ends that was asked to stop: gently, by a second Ctrl-C, or by the signal itself while it imported.
_STOPPED = (EXIT_INTERRUPTED, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT)


def run_graph(graph: Graph, tasks: Sequence[Task], console: Console) -> None:
    """Runs what is missing, one process for each command, and then the report.

    Raises:
        Interrupted: asked to stop; the same command continues.
        UserError: a command failed; what it said stands above; or the graph asks for what cannot be.
    """
    _check(graph, tasks)
    started = time.monotonic()
    for number, task in enumerate(tasks, start=1):
        directory = run_directory(task.config, task.command)
        console.rule(f"{number}/{len(tasks)}  {task.command}  {directory.path.name}", align="left")
        directory.mirror.pull(checkpoints=False)
        if directory.whole(quiet=True) is None:
            _run([task.command, *task.arguments], number, len(tasks))
        else:
            console.print("finished earlier")
        if task.evaluate is not None:
            _run(["evaluate", directory.location, *task.evaluate, *words_for(task.config)], number, len(tasks))
    runs = dict.fromkeys(location for task in tasks for location in _made_by(task))
    _run(["report", *runs, "--out", graph.report, "--title", graph.title], len(tasks), len(tasks))
    console.print(f"{len(tasks)} runs in {time.monotonic() - started:.0f} s, report in {graph.report}")


def _check(graph: Graph, tasks: Sequence[Task]) -> None:
    """What would otherwise show when some runs have been made: where the report goes, and what names stand for.

    Raises:
        UserError: the report is to go to a store; or a name stands for different runs, here or with what is there.
    """
    local_folder(graph.report, "report")
    first: dict[str, Task] = {}
    for task in tasks:
        if task.config.name is None:  # other names are made of the settings
            continue
        directory = run_directory(task.config, task.command)
        other = first.setdefault(directory.location, task)
        reads = Job.plan(task.command, task.config).reads
        if other.command != task.command or differing_keys(other.config, task.config, reads):
            problem = f"different steps would be one run, {directory.location}; name none, or each in its `set`"
            raise ConfigError("name", task.config.name, problem)
        directory.mirror.pull(checkpoints=False)
        directory.check(task.command, task.config, reads)


def _made_by(task: Task) -> Iterator[str]:
    """Locations of a task's run and of the teachers that its runs learnt from."""
    yield run_directory(task.config, task.command).location
    for _, single in runs_of_seeds(task.config) if task.config.seeds else [(None, task.config)]:
        run = run_directory(single, task.command)
        run.mirror.pull(checkpoints=False)
        if (weights := run.teacher_weights()) is None or is_brought(weights):
            continue
        teacher = RunDirectory(split(weights)[0])
        teacher.mirror.pull(checkpoints=False)
        if teacher.finished():  # a checkpoint of the user's need not lie in a run directory
            yield teacher.location


def print_graph(graph: Graph, tasks: Sequence[Task], console: Console) -> None:
    """`--dry-run`: every run, and whether it is finished; raises as `run_graph`."""
    _check(graph, tasks)
    about = [{"command": task.command, "evaluated": "" if task.evaluate is None else "yes"} for task in tasks]
    directories = [run_directory(task.config, task.command) for task in tasks]
    print_runs(graph.title, list(zip(about, directories, strict=True)), console)


def _run(arguments: Sequence[str], done: int, total: int) -> None:
    """Runs one command, with its own process and session; a signal that stops us stops it, gently.

    In one process the memory of a command would count for all that follow: in their results, and on a GPU, where the
    allocator keeps it, in what is free.
    """
    process: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if process is not None:
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # In its own session, Ctrl-C does not reach it beside us: it gets every signal once, from here.
        process = subprocess.Popen(
            [sys.executable, "-m", f"zskt_dist.{arguments[0]}", *arguments[1:]], start_new_session=True
        )
        if asked:  # while the process was started
            process.terminate()
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if code in _STOPPED:
        raise Interrupted(done - 1, total, "run")
    if code:
        raise UserError(f"{arguments[0]} ended with exit code {code}; the same command goes on from there")
