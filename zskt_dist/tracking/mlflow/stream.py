"""Rows and images on their way to MLflow while a run trains."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from zskt_dist.errors import one_line
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.mlflow.runs import RunSender
from zskt_dist.tracking.mlflow.store import RunAddress

log = logging.getLogger(__name__)

_RETRY_SECONDS = 30.0
"""How long a server that failed is left alone."""


class MlflowStream:
    """A tracker that sends from a thread of its own; calls return at once, whatever the server does.

    What could not be sent stays in line until the server is back. What the end of the run leaves there is in the run
    directory, for `upload`.

    Args:
        patience: Seconds that the end of a run waits for the last rows to be sent.
    """

    def __init__(self, address: RunAddress, patience: float = 5.0) -> None:
        self._address, self._patience = address, patience
        self._line: deque[Callable[[RunSender], object]] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        # MLflow's own asynchronous logging will not do: it logs an error for each row that fails, drops that row, and
        # lets the process end only when every request has been answered or has timed out.
        self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
        self._thread.start()

    def log_row(self, row: Row) -> None:
        self._put(lambda run: run.send_rows([row]))

    def log_image(self, iteration: int, path: Path) -> None:
        self._put(lambda run: run.send_image(iteration, path))

    def close(self) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=self._patience)

    def _put(self, send: Callable[[RunSender], object]) -> None:
        self._line.append(send)
        self._wake.set()

    def _send_all(self) -> None:
        run: RunSender | None = None
        is_down = is_last = False
        while not is_last:
            self._wake.wait()
            self._wake.clear()
            is_last = self._closing.is_set()  # read before the queue: everything logged before the end is in it
            try:
                run = run or RunSender(self._address)
                while self._line:
                    self._line[0](run)
                    self._line.popleft()
                is_down = False
            except Exception as error:
                if not is_down:
                    log.warning("MLflow at %s: %s; training goes on", self._address.tracking_uri, one_line(error))
                is_down, run = True, None  # parts of a failed request may have arrived
                is_last = self._closing.wait(_RETRY_SECONDS)
