"""How long a command waits for MLflow in all, whatever it asks for and whatever the server does.

A server can answer each request just in time, ask for five minutes' patience (429, 503), or send a byte a second: no
timeout of a single request bounds that. So requests to a server run in a thread, which is left behind.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from zskt_dist.errors import UserError
from zskt_dist.launch.signals import InThread

T = TypeVar("T")

_LAST_ROWS = 0.25
"""Share of the time that is kept for the last rows, which another process may be sending."""


class TooLateError(UserError):
    """The server has not answered in time."""


class Patience:
    """Seconds that are left for one run.

    Attributes:
        is_over: True if they were not enough once; then later runs of this process wait no more.
    """

    def __init__(self, seconds: float = 20.0) -> None:
        self.is_over = False
        self.begin(seconds)

    def begin(self, seconds: float) -> None:
        """A new run begins, which may wait for so many seconds, those for the last rows among them."""
        self.seconds = seconds
        self.left = 0.0 if self.is_over else seconds * (1 - _LAST_ROWS)

    @property
    def for_last_rows(self) -> float:
        return self.seconds * _LAST_ROWS

    def ask(self, uri: str, action: Callable[[], T]) -> T:
        """The result of `action`, which asks a store; a store on this machine is waited for, however long it takes.

        Raises:
            TooLateError: the time is over.
            Exception: whatever `action` raises.
        """
        if uri.startswith(("sqlite:", "file:", "/")):
            return action()
        if self.left <= 0:
            raise self._too_late()
        found: list[T] = []
        started = time.monotonic()
        asked = InThread(lambda: found.append(action()), "mlflow")
        self.is_over = not asked.ended(within=self.left)
        self.left = max(0.0, self.left - (time.monotonic() - started))
        if self.is_over:
            self.left = 0.0
            raise self._too_late()
        if asked.failure is not None:
            raise asked.failure
        return found[0]

    def check(self) -> None:
        """Ends what was left behind before it changes a file: its caller waits no more; raises TooLateError."""
        if self.is_over:
            raise self._too_late()

    def _too_late(self) -> TooLateError:
        return TooLateError(f"no answer within {self.seconds:g} s (tracking.patience)")


patience = Patience()
"""That of this process."""
