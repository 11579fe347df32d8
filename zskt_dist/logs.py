"""Logging: warnings and errors on stderr in one plain format, of the command and of each of its workers.

Imports nothing heavy: every verb sets it up before it does anything else.
"""

import argparse
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from zskt_dist import ray_job
from zskt_dist.errors import ConfigError

VARIABLE = "ZSKT_LOG_LEVEL"
"""Environment variable that passes a driver's level on to the processes that it starts."""
_LEVELS = ("NOTE", "INFO", "DEBUG")
NOTE = 25
"""Level of what a user should know, and need not mend: shown like a warning, under another name."""
logging.addLevelName(NOTE, _LEVELS[0])
_OURS = "zskt_dist"
_WRITTEN = {"run_dir": "RUN_DIR", "out": "--out", "json": "--json"}
"""Options of verbs that name files and folders that are written."""
_HANDLER = "console"
"""Ray Train gives its workers' root logger a handler of this name, which ours replaces."""


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Adds `-v` to the command line of a verb, parses it, sets up logging, and settles where files are written."""
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="log to stderr what every worker does; -vv: in detail, with the messages of libraries",
    )
    parser.allow_abbrev = False  # else `--dry` would stay in the Ray job that a dry run suggests
    options = parser.parse_intermixed_args(argv)
    if os.environ.get(VARIABLE, _LEVELS[0]) not in _LEVELS:
        parser.error(f"{VARIABLE}={os.environ[VARIABLE]!r}: expected {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}")
    set_up(options.verbose)
    try:
        _keep(options)
    except ConfigError as error:
        parser.error(str(error))
    return options


def _keep(options: argparse.Namespace) -> None:
    """In a Ray job, whose folder is deleted, moves the relative paths of what is written to a folder that lasts."""
    folder = ray_job.lasting_folder()
    if folder is None:
        return
    for name, key in _WRITTEN.items():
        if value := getattr(options, name, None):
            setattr(options, name, type(value)(ray_job.lasting(str(value), key)))
    with contextlib.suppress(OSError):  # then all paths had better be absolute
        folder.mkdir(parents=True, exist_ok=True)
    problem = (
        "Ray deletes this job's folder: what has a relative path (runs_dir, mlflow.db, --json) is written below %s"
    )
    logging.getLogger(_OURS).log(NOTE, problem, folder)


def set_up(verbose: int = 0, who: str | None = None) -> None:
    """Sends the records of this process, and Python's warnings, to stderr; calling it again replaces the first call.

    Args:
        verbose: 0: notes, warnings and errors; 1: also our own messages; 2: in detail, with those of libraries. The
            environment may demand more.
        who: Prefix of each line; None: `rank N` in a process that has a rank, else nothing.
    """
    verbose = max(min(verbose, 2), verbosity())
    if verbose:
        os.environ[VARIABLE] = _LEVELS[verbose]
    if who is None and "RANK" in os.environ:
        who = f"rank {os.environ['RANK']}"
    handler = _Stderr()
    handler.name = _HANDLER
    # On a terminal the user knows the time.
    handler.setFormatter(Format(who, timed=bool(who or verbose) or not sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if other.name != _HANDLER] + [handler]
    root.setLevel(_LEVELS[verbose - 1] if verbose > 1 else logging.WARNING)
    logging.getLogger(_OURS).setLevel(_LEVELS[verbose])
    warnings.showwarning = _log_warning
    if isinstance(sys.stdout, io.TextIOWrapper):  # lines printed before a worker is killed must not be lost
        sys.stdout.reconfigure(line_buffering=True)


def verbosity() -> int:
    """0, 1 or 2, as `set_up` takes it; for workers on machines that do not have this process's environment."""
    return _LEVELS.index(os.environ.get(VARIABLE, _LEVELS[0]))


def adopt(library: str) -> None:
    """Gives the log lines of a library that was just imported our format, by removing its own handlers."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.split(".")[0] == library and isinstance(logger, logging.Logger):
            shown = [handler for handler in logger.handlers if getattr(handler, "stream", None) in streams]
            for handler in shown:
                logger.removeHandler(handler)
                logger.propagate = True


class Format(logging.Formatter):
    """Formats each line as `12:03:14 rank 1  WARNING message`, with the logger's name where it is not ours."""

    def __init__(self, who: str | None, *, timed: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._who, self._timed = f"{who}  " if who else "", timed

    def format(self, record: logging.LogRecord) -> str:
        time = f"{self.formatTime(record, self.datefmt)} " if self._timed else ""
        source = "" if record.name.split(".")[0] in (_OURS, "py") else f"{record.name}: "
        head = f"{time}{self._who}{record.levelname} {source}"
        return "\n".join(head + line for line in super().format(record).splitlines() or [""])


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current stderr, which a bar on a terminal replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Logs a Python warning, like `logging.captureWarnings`, but in one line and without the source text."""
    logging.getLogger("py.warnings").warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)
