"""Commands that are forked off a process with torch in it; they are waited for and killed as those of `subprocess`."""

import functools
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).parents[2]


class Process(Protocol):
    """What tests ask of a command that they have started."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]: ...

    def send_signal(self, sig: int) -> None: ...


class ForkServer:
    """Ours of `tests.support.fork_server`; it ends with this process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def start(self, module: str, *arguments: str, folder: Path, environment: dict[str, str]) -> "Forked":
        """`python -m MODULE ARGUMENT …` in that folder and environment, in a session of its own."""
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        socket.send_fds(self._socket, [b"1"], [theirs.fileno(), their_output])
        theirs.close()
        os.close(their_output)
        request = {"module": module, "arguments": arguments, "folder": str(folder), "environment": environment}
        ours.sendall(json.dumps(request).encode() + b"\n")
        return Forked(ours, output)


class Forked:
    """A command of the fork server."""

    def __init__(self, answers: socket.socket, output: int) -> None:
        self._answers, self._output = answers, output
        self._lines = answers.makefile(encoding="utf-8")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(within=0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(within=timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("command", timeout)
        return code

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        """All that it and its children print, on both streams, to their end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        printed = b""
        while _readable(self._output, _left(deadline)):
            part = os.read(self._output, 1 << 16)
            if not part:
                self.wait(_left(deadline))
                return printed.decode(errors="replace"), ""
            printed += part
        assert timeout is not None
        raise subprocess.TimeoutExpired("command", timeout, output=printed)

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _ended(self, within: float | None) -> int | None:
        if self.returncode is None and _readable(self._answers.fileno(), within):
            self.returncode = int(self._lines.readline())
        return self.returncode

    def __del__(self) -> None:
        os.close(self._output)
        self._answers.close()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _readable(descriptor: int, within: float | None) -> bool:
    return bool(select.select([descriptor], [], [], within)[0])


@functools.cache
def fork_server() -> ForkServer:
    """That of this process."""
    return ForkServer()
