"""The trained network as a registered model of an MLflow store, with signature and input example."""

import re
from typing import Any

from zskt_dist.export.exported_network import NORMALISED, PIXELS, Deployed, ExportedNetwork, own_role
from zskt_dist.launch.mlflow_run import replay
from zskt_dist.tracking.mlflow.models import log_student, register_model
from zskt_dist.tracking.mlflow.store import RunAddress, reached, required_uri, store_of, withhold_credentials


def register(exported: ExportedNetwork, *, normalises: bool, name: str | None, uri: str | None) -> dict[str, Any]:
    """Registers the network, after the run itself has been brought to the store; once for the same weights.

    Args:
        normalises: The model takes pixels in [0, 1] instead of normalised images.
        name: Of the registered model; None: experiment and role.
        uri: Of the store; None: the run's own, else MLFLOW_TRACKING_URI, else mlflow.db.

    Returns:
        `name`, `version`, `model_uri`, `tracking_uri` and `input`.

    Raises:
        UserError: the store cannot be reached.
    """
    directory = exported.directory
    target = required_uri(uri, store_of(directory.tracking))
    takes = PIXELS if normalises else NORMALISED
    model_name = re.sub(r"[^\w. -]", "-", name or f"{exported.result['experiment']}-{exported.role}")
    is_logged = exported.role == own_role(exported.result) and not normalises
    label = f"{exported.role}_of_pixels" if normalises else exported.role
    withhold_credentials(target, uri)
    with reached(target):
        with directory.driven():
            replay(directory, target)
        address = RunAddress.read(directory.tracking)
        assert address is not None, "replay has written it"
        version, model_uri = register_model(
            address,
            model_name,
            tags={"weights_sha256": exported.sha256, "arch": exported.arch, "input": takes},
            log_model=lambda: log_student(Deployed(exported, normalises=normalises), exported.image_shape, name=label),
            is_logged=is_logged,
        )
    return {"name": model_name, "version": version, "model_uri": model_uri, "tracking_uri": target, "input": takes}
