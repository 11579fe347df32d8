"""Receives a stop signal in the driver and passes it on to workers that do not get it themselves."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from zskt_dist.errors import announce_stop


class InThread:
    """A call in a thread of its own, so that the main thread can receive signals meanwhile.

    Attributes:
        failure: The exception that the call has raised; None where there is none.
    """

    def __init__(self, call: Callable[[], object], name: str) -> None:
        self.failure: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ended(self, within: float) -> bool:
        """Waits for so many seconds at most; True if the call has ended."""
        self._thread.join(timeout=within)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.failure = error


@contextmanager
def stop_file_on_signal(stop: Path) -> Iterator[None]:
    """While active, SIGTERM and SIGINT create the file `stop`, and the workers save and leave the loop.

    A second Ctrl-C raises KeyboardInterrupt at once. Only the main thread gets signals: in another one this does
    nothing, and the caller there creates the file.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.exists() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.exists():
            announce_stop()
        stop.touch()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
