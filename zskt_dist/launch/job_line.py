"""The line with which `--dry-run` shows the same command as a Ray job."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from zskt_dist.addresses import masked
from zskt_dist.config import Config, flatten
from zskt_dist.tasks.stages import absolute_paths
from zskt_dist.tracking.mlflow.store import tracking_uri


def job_submit_line(command: str, config: Config, arguments: Sequence[str]) -> str:
    """The same command as a Ray job, whose folder is a copy that Ray deletes: so paths are absolute.

    Args:
        arguments: Those of the command line, without `--dry-run`.
    """
    paths = dict(_paths(config))
    given = [each for each in arguments if each.partition("=")[0] not in {"launch.kind", *paths}]
    words = [*_with_absolute_json(given), "launch.kind=ray", *(f"{key}={path}" for key, path in paths.items())]
    return f"ray job submit --working-dir . -- python -m zskt_dist.{command} {shlex.join(map(masked, words))}"


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """The keys whose values are relative paths, or mean one, with the absolute ones."""
    before, after = dict(flatten(config)), dict(flatten(absolute_paths(config)))
    for key, path in after.items():
        if path != before[key] and not (key == "data.root" and config.data.name in ("none", "digits")):
            yield key, path
    if (store := tracking_uri(config.tracking.uri)) is not None and store != config.tracking.uri:
        yield "tracking.uri", store


def _with_absolute_json(arguments: Sequence[str]) -> Iterator[str]:
    """Argparse takes `--json FILE` and `--json=FILE`."""
    before = ""
    for word in arguments:
        file = word if before == "--json" else word.removeprefix("--json=")
        is_file = before == "--json" or file != word
        yield word.removesuffix(file) + str(Path(file).absolute()) if is_file else word
        before = word
