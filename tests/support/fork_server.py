"""A process that has imported torch: commands forked off it start at once, where a new one takes seconds.

`python -m tests.support.fork_server DESCRIPTOR` serves the socket at that descriptor: each byte brings a socket of the
command's own and the end of a pipe for its output. On that socket arrives what is to be run; its process id and, at
last, its exit code go back.
"""

import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

PRELOADED = (
    "zskt_dist.launch.driver",
    "zskt_dist.training.worker",
    "zskt_dist.tasks.transfer",
    "zskt_dist.tasks.supervised",
    "zskt_dist.evaluation.run_evaluation",
    "zskt_dist.figures.run",
    "pyarrow.parquet",
    "sklearn.datasets",
)


def serve(server: socket.socket) -> dict[str, Any]:
    """Waits for commands until whoever asks has ended; returns in a process of its own for each, with what to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that tell how a command has ended
    while True:
        byte, descriptors, *_ = socket.recv_fds(server, 1, 2)
        if not byte:
            os._exit(0)
        if os.fork() == 0:
            server.close()
            return _begin(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _begin(connection: int, output: int) -> dict[str, Any]:
    """Forks the command and tells how it ends; returns in the command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=connection) as answers, answers.makefile("rw", encoding="utf-8") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for standard in (1, 2):
                os.dup2(output, standard)
            os.close(output)
            print(os.getpid(), file=lines, flush=True)
            return request
        os.close(output)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=lines, flush=True)
    os._exit(0)


def _become(request: dict[str, Any]) -> None:
    """This process is what `python -m MODULE ARGUMENT …` in that folder and environment would be."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in PRELOADED:
        __import__(name)
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    threads = [name for name in threads if name != "jemalloc_bg_thd"]  # pyarrow's, which knows of forks
    assert len(threads) == 1, f"a fork copies one thread only, there are {threads}"
    _become(serve(socket.socket(fileno=int(sys.argv[1]))))
