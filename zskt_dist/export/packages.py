"""Which packages beyond the core a format needs."""

from collections.abc import Iterable

from zskt_dist.extras import require

_NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "int8": ("onnx", "onnxscript", "onnxruntime"),
    "mlflow": ("mlflow",),
    "card": ("huggingface_hub",),
}


def check_packages(formats: Iterable[str]) -> None:
    """Raises UserError where a package is missing, before anything is made."""
    for name in formats:
        require(f"--to {name}", *_NEEDED.get(name, ()))
