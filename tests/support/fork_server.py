"""A process that has imported torch: commands forked off it start at once, where a new one takes seconds.

`python -m tests.support.fork_server DESCRIPTOR` accepts connections of the socket at that descriptor. Each brings the
end of a pipe for a command's output and a line that says what is to be run; the command's process id and, at last, its
exit code go back. The server ends when its standard input does, with whoever has started it.
"""

import atexit
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

from tests.support.forks import SPAWNED_RANKS

PRELOADED = (
    "zskt_dist.launch.driver",
    "zskt_dist.training.worker",
    "zskt_dist.tasks.transfer",
    "zskt_dist.tasks.supervised",
    "zskt_dist.evaluation.run_evaluation",
    "zskt_dist.figures.run",
    "zskt_dist.tracking.mlflow.runs",
    "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin",
    "pyarrow.parquet",
    "sklearn.datasets",
    "torch._dynamo",
)


def serve(server: socket.socket) -> dict[str, Any]:
    """Waits for commands until whoever asks has ended; returns in a process of its own for each, with what to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that tell how a command has ended
    while True:
        ready, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = server.accept()
        _pid, user, _group = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user == os.getuid() and os.fork() == 0:
            server.close()
            return _begin(connection)
        connection.close()


def _begin(connection: socket.socket) -> dict[str, Any]:
    """Forks the command and tells how it ends; returns in the command, which ends with whoever asked for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (output, *_), *_ = socket.recv_fds(connection, 1, 1)
    with connection, connection.makefile("rw", encoding="utf-8") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
        pid = os.fork()
        if pid == 0:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDONLY)
            for ours, standard in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(ours, standard)
            os.close(nothing)
            os.close(output)
            print(os.getpid(), file=lines, flush=True)
            return request
        os.close(output)
        ended = os.pidfd_open(pid)
        ready, _, _ = select.select([connection, ended], [], [])
        if ended not in ready:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):
            print(os.waitstatus_to_exitcode(status), file=lines, flush=True)
        os._exit(0)


def _take_short_cuts(ranks: bool) -> None:
    """Figures are written as one pixel, as in tests of this process: rendering takes longer than the run.

    Args:
        ranks: A command's ranks are forked off it, too: one that is spawned imports for seconds.
    """
    from tests.support.images import save_unrendered, svg_unrendered
    from zskt_dist.figures import drawing, plots
    from zskt_dist.launch import local

    plots.save = save_unrendered
    drawing.svg = svg_unrendered
    if ranks:
        start = local.start_processes
        local.start_processes = lambda *arguments, **settings: start(*arguments, **settings | {"start_method": "fork"})


def _become(request: dict[str, Any]) -> None:
    """This process is what `python -m MODULE ARGUMENT …` in that folder and environment would be.

    But hashes of strings have the same seed in all of them.
    """
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    random.seed()
    numpy.random.seed()
    _take_short_cuts(ranks=SPAWNED_RANKS not in os.environ)
    sys.argv = [request["program"], *request["arguments"]]
    if Path(request["program"]).is_absolute():
        sys.path[0] = str(Path(request["program"]).parent)
        runpy.run_path(request["program"], run_name="__main__")
    else:
        sys.path[0] = request["folder"]
        runpy.run_module(request["program"], run_name="__main__", alter_sys=True)


def _end(code: int) -> None:
    """Ends without freeing what has been imported, which takes half a second; faults of that phase are not seen."""
    threading._shutdown()  # type: ignore[attr-defined]  # threads of executors, too, which nothing public ends
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in PRELOADED:
        __import__(name)
    gc.freeze()  # or the first collection of each command would copy all that is shared
    threads = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    threads = [name for name in threads if name != "jemalloc_bg_thd"]  # pyarrow's, which knows of forks
    assert len(threads) == 1, f"a fork copies one thread only, there are {threads}"
    task = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        _become(task)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        _end(end.code if isinstance(end.code, int) else int(end.code is not None))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        _end(1)
    _end(0)
