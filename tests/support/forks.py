"""Commands that are forked off a process with torch in it; they are waited for and killed as those of `subprocess`."""

import functools
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).parents[2]
FORK_SERVER = "ZSKT_TESTS_FORK_SERVER"
"""Environment variable with the name of a fork server, for programs that start Python by themselves."""
SPAWNED_RANKS = "ZSKT_TESTS_SPAWNED_RANKS"
"""Environment variable of a command whose ranks are to be started as a user's are."""


class Process(Protocol):
    """What tests ask of a command that they have started."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]: ...

    def send_signal(self, sig: int) -> None: ...


class ForkServer:
    """Ours of `tests.support.fork_server`; it ends with this process.

    Attributes:
        name: Of its socket, in Linux's abstract namespace: there is no file to remove.
    """

    def __init__(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("")
            self.name = listener.getsockname().decode().removeprefix("\0")
            listener.listen(64)  # those that come while it imports
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(listener.fileno())],
                cwd=REPOSITORY,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def start(self, program: str, *arguments: str, folder: Path, environment: dict[str, str]) -> "Forked":
        """A module or script, as `ask` takes it, in a session of its own."""
        output, their_output = os.pipe()
        answers = ask(self.name, their_output, program, arguments, folder, environment)
        os.close(their_output)
        return Forked(answers, output)


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


def ask(
    server: str, output: int, program: str, arguments: Sequence[str], folder: Path, environment: dict[str, str]
) -> socket.socket:
    """Has the fork server of that name run a program, a module's name or the path of a script.

    Args:
        output: Descriptor that takes what it prints, on both streams.

    Returns:
        A connection on which a line with its process id arrives and, at last, one with its exit code.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"\0{server}")
    socket.send_fds(connection, [b"1"], [output])
    request = {"program": program, "arguments": arguments, "folder": str(folder), "environment": environment}
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection


def run_instead(program: str, arguments: Sequence[str], output: int, variables: Mapping[str, str] | None = None) -> int:
    """Has the fork server of the environment run what this process was to be, and waits; returns the exit code.

    Args:
        variables: Of the environment, besides those of this process.
    """
    connection = ask(os.environ[FORK_SERVER], output, program, arguments, Path.cwd(), os.environ | (variables or {}))
    with connection.makefile() as lines:
        begun, ended = lines.readline(), lines.readline()
    if not ended:
        raise RuntimeError(f"the fork server has ended; process {begun.strip() or 'not begun'}")
    return int(ended)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _readable(descriptor: int, within: float | None) -> bool:
    return bool(select.select([descriptor], [], [], within)[0])


@functools.cache
def fork_server() -> ForkServer:
    """That of this process."""
    return ForkServer()
