"""The store that runs are recorded in, and the address of a run in it."""

import glob
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from zskt_dist.addresses import hide, masked, reveal
from zskt_dist.errors import ConfigError, UserError, one_line
from zskt_dist.files import lock, read_json, write_atomic_with
from zskt_dist.ray_job import lasting

if TYPE_CHECKING:
    from mlflow import MlflowClient


log = logging.getLogger(__name__)

_CREDENTIALS = (
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
)


class RunAddress(NamedTuple):
    """Where a run is recorded; plain strings that travel to workers and into `result.json`."""

    tracking_uri: str
    experiment_id: str
    run_id: str

    @classmethod
    def read(cls, path: Path) -> "RunAddress | None":
        """From the `mlflow.json` of a run directory; None where no run was opened."""
        known = read_json(path)
        values = [(known or {}).get(field) for field in cls._fields]
        return cls(*map(str, values)) if all(isinstance(value, str) for value in values) else None


def store_of(path: Path) -> str | None:
    """The store that the run of an `mlflow.json` was given, even if it could not be reached; None: none, or unknown."""
    known = read_json(path)
    uri = (known or {}).get("tracking_uri")
    return uri if isinstance(uri, str) else None


def tracking_uri(configured: str | None) -> str | None:
    """The store to write to, with an absolute path: workers start in other folders; None: do not track.

    Raises:
        ConfigError: it would be lost with the pod of a Ray job.
    """
    if configured == "none":
        return None
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(_lasting(uri.removeprefix('sqlite:///'))).absolute()}"
    folder = uri.removeprefix("file:")
    if ":" not in folder and not folder.startswith("databricks"):
        return uri.removesuffix(folder) + _lasting(folder)
    return hide(uri)


def _lasting(path: str) -> str:
    """The path of a store, which a Ray job must not keep in its own folder; raises ConfigError as `lasting`."""
    try:
        return lasting(path, "tracking.uri")
    except ConfigError as error:
        raise ConfigError(error.key, error.value, f"{error.problem}; or tracking.uri=none") from None


def required_uri(named: str | None, known: str | None = None) -> str:
    """The store that `--uri` names, else the known one of a run, else the default.

    Raises:
        UserError: `--uri none`.
    """
    uri = tracking_uri(named or known)
    if uri is None:
        raise UserError("--uri none: name a store, for example sqlite:///mlflow.db")
    return uri


def withhold_credentials(of_run: str | None, named: str | None, option: str = "--uri ") -> None:
    """Keeps the user's credentials from a web server that a run's own files alone name: the run may be somebody else's.

    For the rest of this process, as requests may still be under way when their caller waits no more.

    Args:
        of_run: The store that the run names; None: it names none.
        named: The store that the user of the command names; None: none, and `MLFLOW_TRACKING_URI` counts.
        option: How the command lets the user name one.
    """
    uri, trusted = tracking_uri(of_run), tracking_uri(named) or tracking_uri(os.environ.get("MLFLOW_TRACKING_URI"))
    same = uri is not None and trusted is not None and uri.rstrip("/") == trusted.rstrip("/")
    held = [name for name in _CREDENTIALS if os.environ.get(name)]
    file = Path("~/.mlflow/credentials").expanduser().exists()
    if uri is None or same or urlsplit(uri).scheme.lower() not in ("http", "https") or not (held or file):
        return
    problem = "no password or token is sent to %s, which only the run names; if you trust it, name it: %s%s"
    log.warning(problem, uri, option, uri)
    for name in held:
        del os.environ[name]
    if file:  # MLflow would take those in it
        os.environ |= dict.fromkeys(_CREDENTIALS[:2], "guest")


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """For commands that are nothing without MLflow: what it raises within becomes an error for the user."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {uri} cannot be reached: {masked(one_line(error))}") from None


def connect(uri: str) -> "MlflowClient":
    # MLflow's own patience is minutes; a record is not worth that. What the user has set wins.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # so its lines look like all others
    from mlflow import MlflowClient

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # an outage is for us to warn of, and once
    address = opened(uri)
    if address.startswith("sqlite:////") and "?" not in address:
        _make_whole(Path(address.removeprefix("sqlite:///")))
    return MlflowClient(tracking_uri=address)


def _make_whole(database: Path) -> None:
    """Makes a new database at once: where MLflow is killed while it makes the tables, it can never open them again."""
    from mlflow import MlflowClient

    if (database.exists() and database.stat().st_size) or not database.parent.is_dir():
        return
    with lock(database.with_name(f".{database.name}.lock")):
        if database.exists() and database.stat().st_size:
            return  # another command has made it meanwhile
        for draft in database.parent.glob(f".{glob.escape(database.name)}.????????.tmp*"):
            draft.unlink(missing_ok=True)  # of a killed command, with SQLite's journal; the lock has nobody else
        write_atomic_with(
            database, lambda draft: MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
        )


def opened(uri: str) -> str:
    """The address that MLflow is given; of a web server without user and password, which MLflow would print.

    Raises:
        UserError: nobody has said the password.
    """
    parts = urlsplit(reveal(uri))
    if parts.scheme not in ("http", "https") or parts.password is None:
        return reveal(uri)
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def check_reachable(uri: str) -> None:
    """Asks the store something small; raises whatever MLflow raises.

    MLflow makes what is missing of a store: the tables of an empty database, a folder with a default experiment.
    """
    connect(uri).search_experiments(max_results=1)
