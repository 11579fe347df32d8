"""Which optional packages a format needs."""

from collections.abc import Iterable
from importlib.util import find_spec

from zskt_dist.errors import UserError

_NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "int8": ("onnx", "onnxscript", "onnxruntime"),
    "mlflow": ("mlflow",),
    "card": ("huggingface_hub",),
}


def check_packages(formats: Iterable[str]) -> None:
    """Raises UserError where a package is missing, before anything is made."""
    for name in formats:
        missing = [package for package in _NEEDED.get(name, ()) if find_spec(package) is None]
        if missing:
            raise UserError(
                f"--to {name}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
                "use uv pip install 'zskt-dist[export]'"
            )
