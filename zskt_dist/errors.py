"""Errors meant for the person who started the command: one clear line, exit code 2, no traceback."""

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 143  # as the shell reports a process that SIGTERM ended: not a success, so schedulers retry


class UserError(Exception):
    """A command cannot be done; the message says what would work."""


class DamagedFileError(UserError):
    """A file of a run is not what was written there; the message names it."""


def one_line(error: BaseException) -> str:
    """A library's error on one line: its kind and the first line of its message; a `UserError` as it is."""
    if isinstance(error, UserError):
        return str(error)
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])[:300]


NO_SUCH_FILE = "no such file or folder"


class ConfigError(UserError):
    """A configuration key has a value that cannot work.

    Args:
        key: Dotted key, as written on the command line (`loss.beta`).
        value: The value it got.
        problem: What is wrong with it and what would work.
    """

    def __init__(self, key: str, value: object, problem: str) -> None:
        super().__init__(key, value, problem)  # these arguments make it picklable for Ray
        self.key, self.value, self.problem = key, value, problem

    def __str__(self) -> str:
        return f"{self.key}={self.value!r}: {self.problem}"


class Interrupted(UserError):
    """The run was stopped (SIGTERM, Ctrl-C); everything up to `iteration` is saved.

    Args:
        unit: What `iteration` counts, if not iterations.
    """

    def __init__(self, iteration: int, iterations: int, unit: str = "iteration") -> None:
        super().__init__(iteration, iterations, unit)
        self.iteration, self.iterations, self.unit = iteration, iterations, unit

    def __str__(self) -> str:
        if not self.iterations:
            return "stopped before it began"
        return f"stopped at {self.unit} {self.iteration} of {self.iterations}"


def did_you_mean(word: str, known: Iterable[str], most: int = 1, *, prefix: str = "") -> str:
    """`; did you mean 'a' or 'b'?`, with `most` words at most, or nothing when no known word is close.

    Args:
        prefix: What stands before the words when they are typed.
    """
    close = difflib.get_close_matches(word, list(known), n=most, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(prefix + each) for each in close)}?" if close else ""


def is_full(error: OSError) -> bool:
    """True if the disk, or this user's quota, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(error: OSError) -> str:
    """The message for an error that `is_full`."""
    where = error.filename or "a file"
    return f"{where} cannot be written: {error.strerror}; make room, and the same command continues from what is saved"


def exit_code(error: UserError | KeyboardInterrupt) -> int:
    """Exit code of a command that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return EXIT_INTERRUPTED if isinstance(error, Interrupted) else EXIT_USER_ERROR


def announce_stop() -> None:
    """Announces the stop; for signal handlers, which may have interrupted another write to stderr."""
    os.write(2, b"stopping: work in progress is saved first; Ctrl-C again leaves at once\n")


def guarded(run: Callable[[], None], *, fresh: bool = False, interrupted: str | None = None) -> int:
    """Runs a command; errors meant for people become one line on stderr. Returns the exit code.

    Args:
        fresh: True if the command has --fresh, which would start over again.
        interrupted: What Ctrl-C leaves behind, in words; None: a checkpoint.
    """
    again = "the same command without --fresh" if fresh else "the same command"
    try:
        run()
    except Interrupted as error:
        print(f"{error}; {again} continues from there", file=sys.stderr)
        return exit_code(error)
    except UserError as error:
        print(f"error: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return exit_code(error)
    except OSError as error:
        if not is_full(error) and error.filename is None:  # no file of the user: a defect, or a fault of the machine
            raise
        message = no_space(error) if is_full(error) else f"{error.filename}: {error.strerror or error}"
        print(f"error: {message}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt as error:
        left = interrupted or f"{again} continues from the last checkpoint"
        print(f"interrupted; {left}", file=sys.stderr)
        return exit_code(error)
    return 0
