"""Passing a stop signal on from the driver to workers that do not get it themselves."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def stop_file_on_signal(stop: Path) -> Iterator[None]:
    """While active, SIGTERM and SIGINT create `stop`, which asks the workers to save and leave the loop.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread, which alone gets signals, nothing
    happens: whoever runs us there creates the file.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.exists() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.touch()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
