"""Measure finished runs: accuracy, agreement, calibration, predictions on noise, transition curves and MTE."""

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from zskt_dist.errors import guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.evaluate",
        description=__doc__,
        epilog="What has been measured with the same settings is shown again at once; --fresh measures anew.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, runs/EXPERIMENT/NAME, or its URI")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="transitions.images=100, data.root=…, launch.workers=2, …"
    )
    parser.add_argument("--fresh", action="store_true", help="measure anew")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result, with the evaluation, to FILE")
    options = parser.parse_intermixed_args(argv)
    return guarded(lambda: _evaluate(options), fresh=options.fresh)


def _evaluate(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zskt_dist.files import check_json, write_json
    from zskt_dist.launch.environment import is_follower
    from zskt_dist.launch.measure import evaluate_run

    if options.json and not is_follower():
        check_json(options.json)
    result = evaluate_run(options.run_dir, options.overrides, fresh=options.fresh, console=Console())
    if options.json and result:
        write_json(options.json, result)


class _Callable(ModuleType):
    """The package's function of this name, too: whoever imports this module puts it in the function's place."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function()(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:  # other modules cannot be pickled
        return importlib.import_module, (self.__name__,)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function())

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # of a module, it can be set
        return _function().__doc__


def _function() -> Callable[..., Any]:
    from zskt_dist.api import evaluate

    return evaluate


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    raise SystemExit(main())
