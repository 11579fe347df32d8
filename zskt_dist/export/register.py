"""The trained network as a registered model of an MLflow store, with signature and input example."""

import re
from typing import Any

from zskt_dist.errors import UserError
from zskt_dist.export.exported_network import NORMALISED, PIXELS, Deployed, ExportedNetwork, own_role
from zskt_dist.files import read_json
from zskt_dist.launch.mlflow_run import replay
from zskt_dist.tracking.mlflow import RunAddress, log_student, register_model, tracking_uri


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
    known = read_json(directory.tracking)
    target = tracking_uri(uri or (known and known["tracking_uri"]))
    if target is None:
        raise UserError("--uri none: name a store, for example sqlite:///mlflow.db")
    takes = PIXELS if normalises else NORMALISED
    model_name = re.sub(r"[^\w. -]", "-", name or f"{exported.result['experiment']}-{exported.role}")
    is_logged = exported.role == own_role(exported.result) and not normalises
    label = f"{exported.role}_of_pixels" if normalises else exported.role
    try:
        with directory.driven():
            replay(directory, target)
        known = read_json(directory.tracking) or {}
        version, model_uri = register_model(
            RunAddress.of(known),
            model_name,
            tags={"weights_sha256": exported.sha256, "arch": exported.arch, "input": takes},
            log_model=lambda: log_student(Deployed(exported, normalises=normalises), exported.image_shape, name=label),
            is_logged=is_logged,
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {target} cannot be reached: {type(error).__name__}: {error}") from None
    return {"name": model_name, "version": version, "model_uri": model_uri, "tracking_uri": target, "input": takes}
