"""Passwords in addresses of servers: hidden wherever an address is written or shown, put back where it is opened."""

import os
import re
from collections.abc import Mapping

from zskt_dist.errors import UserError

_HIDDEN = "***"
_USER = re.compile(r"://\S*@")
_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:key|secret|token|password|signature|credential)[^=&\s]*=)[^&\s]+")
_known: dict[str, str] = {}


def masked(text: str) -> str:
    """`text` without the users and passwords of addresses, and without the values of their secret parameters."""
    return _SECRET.sub(rf"\1{_HIDDEN}", _USER.sub(f"://{_HIDDEN}@", text))


def hide(address: str) -> str:
    """An address without user and password, which this process remembers for `reveal`."""
    hidden = masked(address)
    if _HIDDEN not in address and hidden != address:
        _known[hidden] = address
    return hidden


def reveal(address: str) -> str:
    """A hidden address with the password that this process was given for it, or `MLFLOW_TRACKING_URI` has.

    Raises:
        UserError: nobody has said the password.
    """
    if _HIDDEN not in address:
        return address
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address not in _known and masked(named) == address:
        return named
    if address not in _known:
        problem = f"{address}: the password is not kept with the run"
        raise UserError(f"{problem}; give the whole address in MLFLOW_TRACKING_URI, or to `zskt replay` with --uri")
    return _known[address]


def passwords() -> dict[str, str]:
    """What `reveal` needs in another process; to be handed to it in memory and written nowhere."""
    return dict(_known)


def learn(found: Mapping[str, str]) -> None:
    """Takes over the `passwords` of another process."""
    _known.update(found)
