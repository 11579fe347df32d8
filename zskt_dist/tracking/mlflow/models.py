"""Trained networks as MLflow models, logged in their run and registered by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zskt_dist.errors import UserError, one_line
from zskt_dist.tracking.mlflow.store import RunAddress, connect, opened


def log_student(network: Any, image_shape: Sequence[int], *, name: str) -> str:
    """Logs `network` ([B, C, H, W] normalised images to logits) in the active run; returns the model's URI.

    The format is torch.export's: it loads without this package and runs no pickled code. The
    example has two images, for with one the batch size would be fixed at one.
    """
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    example = np.zeros((2, *image_shape), dtype=np.float32)
    with torch.no_grad():
        classes = network(torch.from_numpy(example)).shape[1]
    info = mlflow.pytorch.log_model(
        network,
        name=name,
        serialization_format="pt2",
        input_example=example,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *image_shape))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]),
        ),
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],  # spares MLflow an inference in a new process
    )
    return str(info.model_uri)


def register_model(
    address: RunAddress, name: str, *, tags: Mapping[str, str], log_model: Callable[[], str], is_logged: bool
) -> tuple[str, str]:
    """Makes a model of a run a version of the registered model `name`; one with the same tags is there already.

    Args:
        log_model: Called inside the active run where the model has to be logged first; returns its URI.
        is_logged: It is the model that `upload` has logged.

    Returns:
        The version and the model's URI.

    Raises:
        UserError: the model cannot be logged; Exception: whatever MLflow raises when the store cannot be reached.
    """
    import mlflow

    client = connect(address.tracking_uri)
    for version in client.search_model_versions(f"name='{name}'"):
        if tags.items() <= version.tags.items():
            return str(version.version), str(version.source)
    mlflow.set_tracking_uri(opened(address.tracking_uri))
    logged = client.get_run(address.run_id).data.tags.get("model_uri") if is_logged else None
    model_uri = logged or log_model_in_run(address, log_model)
    return str(mlflow.register_model(model_uri, name, tags=dict(tags)).version), model_uri


def log_model_in_run(address: RunAddress, log_model: Callable[[], str]) -> str:
    """Calls it inside the active run, which stays a good one; raises UserError where that fails."""
    import mlflow

    mlflow.set_tracking_uri(opened(address.tracking_uri))
    with mlflow.start_run(run_id=address.run_id):  # in an outage it is the end of this that raises
        try:
            return log_model()
        except Exception as error:  # the network may be anybody's code, and torch has no one class for what it refuses
            failed = error
    raise UserError(f"the model cannot be logged in MLflow, as torch.export writes it: {one_line(failed)}") from failed
