"""Optional packages: the extra that installs each, and a one-line error where one is missing."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from zskt_dist.errors import UserError

EXTRAS = {
    "zoo": {"timm": "timm", "torchvision": "torchvision", "scipy": "SciPy"},
    "ray": {"ray": "Ray"},
    "mlflow": {"mlflow": "MLflow"},
    "report": {
        "matplotlib": "Matplotlib",
        "pandas": "pandas",
        "scipy": "SciPy",
        "markdown_it": "markdown-it-py",
        "jinja2": "Jinja2",
    },
    "export": {
        "onnx": "ONNX",
        "onnxruntime": "ONNX Runtime",
        "onnxscript": "ONNX Script",
        "huggingface_hub": "huggingface_hub",
    },
    "deepspeed": {"deepspeed": "DeepSpeed"},
}
"""Each extra of `zskt-dist` with the modules that it installs and their usual names."""


def is_installed(module: str) -> bool:
    return find_spec(module) is not None


def lacking(*modules: str) -> str | None:
    """`needs Ray: pip install 'zskt-dist[ray]'`, for the modules that are not installed; None where all are."""
    missing = {module for module in modules if not is_installed(module)}
    names: list[str] = []
    extras: list[str] = []
    while missing:
        extra = max(EXTRAS, key=lambda each: len(missing & EXTRAS[each].keys()))
        brought = {module: name for module, name in EXTRAS[extra].items() if module in missing}
        extras.append(extra)
        names += brought.values()
        missing -= brought.keys()
    if not names:
        return None
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"needs {listed}: {install(*extras)}"


def require(who: str, *modules: str) -> None:
    """Raises UserError where a module that `who` needs is not installed."""
    if problem := lacking(*modules):
        raise UserError(f"{who} {problem}")


def installed_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def install(*extras: str) -> str:
    """The command that installs extras."""
    return f"pip install 'zskt-dist[{','.join(extras)}]'"
