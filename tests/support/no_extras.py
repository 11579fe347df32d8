"""Run as a script: packages beyond the core are as if they were not installed, for the code that is given."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

BEYOND_THE_CORE = (
    *("ray", "mlflow", "deepspeed", "pyarrow", "PIL", "torchvision", "rich", "pandas", "matplotlib", "timm"),
    *("sklearn", "scipy", "onnx", "onnxruntime", "datasets"),
)


class _Core:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in BEYOND_THE_CORE else PathFinder.find_spec(name, path, target)


if __name__ == "__main__":
    sys.meta_path[sys.meta_path.index(PathFinder)] = _Core
    exec(sys.argv[1])
