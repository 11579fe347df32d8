"""MLflow stores in SQLite, whose tables are made once: MLflow takes more than a second for them."""

import functools
import tempfile
from pathlib import Path

from zskt_dist.tracking.mlflow.store import check_reachable


def new_store(folder: Path) -> str:
    """The address of an empty store, `mlflow.db` in the folder."""
    path = folder / "mlflow.db"
    path.write_bytes(_tables())
    return f"sqlite:///{path}"


@functools.cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        check_reachable(f"sqlite:///{path}")
        return path.read_bytes()
