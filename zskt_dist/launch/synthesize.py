"""`synthesize`: checks the run, orders its pseudo-data and prints the result."""

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from zskt_dist.config import Config
from zskt_dist.data.dataset_card import dataset_card
from zskt_dist.data.pool import pool_files
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.files import read_json, write_atomic
from zskt_dist.launch import named_code
from zskt_dist.launch.driver import synthesize
from zskt_dist.launch.environment import is_follower
from zskt_dist.launch.evaluate import TEACHER_KEYS, measured_config
from zskt_dist.page.write import update_page
from zskt_dist.runs.directory import RunDirectory, find_finished
from zskt_dist.runs.locations import local_folder
from zskt_dist.runs.sums import files_of
from zskt_dist.tasks.stages import Stage, absolute_paths
from zskt_dist.tasks.synthesize import SynthesisOrder

Result = dict[str, Any]

# Keys for where, and with which teacher; all others belong to the run.
_OWN_KEYS = ("launch.", "device=", *TEACHER_KEYS, *named_code.KEYS)
# Processes of this machine with one thread each: sums have one order, so shards are equal to the byte.
_PLACE = ("launch.kind=local", "launch.workers=1", "launch.cpus_per_worker=1", "tracking.uri=none")


class Wanted(NamedTuple):
    """The options of the command line."""

    images: int | None
    """None: as many as the pool of an inversion has, else 10,000."""
    out: str | None
    """None: `pseudo_data` in the run directory."""
    shard_images: int | None
    sources: str
    """`all`, `last`, or iterations with commas."""


def synthesize_run(location: str, overrides: list[str], wanted: Wanted, *, fresh: bool, console: Console) -> Result:
    """Makes the pseudo-data, or the missing part of it, and returns its description; {} on torchrun's other ranks.

    Raises:
        UserError: the run, a snapshot or the teacher is missing, or the folder holds something else.
    """
    for override in overrides:
        if not override.startswith(_OWN_KEYS):
            key, _, value = override.partition("=")
            allowed = "launch, device and teacher.checkpoint with teacher.prefix"
            raise ConfigError(key, value, f"belongs to the run; synthesize takes {allowed}")
    directory, result = find_finished(location, "synthesize", single=True)
    directory.mirror.pull(checkpoints=False, pseudo_data=wanted.out is None)
    if (read_json(directory.begun) or {}).get("task") == "pseudo_data":
        raise UserError(
            f"{location} learnt from pseudo-data and has no generator; use a run of train without pseudo_data"
        )
    if result["command"] != "train":
        raise UserError(f"{location} is a run of {result['command']}, which has no generator; use one of train")
    config = measured_config(directory, [*_PLACE, *overrides])
    pool = result.get("method") == "inversion"
    sources, images = _rounds(wanted, directory, config) if pool else (_chosen(wanted.sources, directory), 10_000)
    if config.launch.kind != "local":
        raise ConfigError("launch.kind", config.launch.kind, "synthesize runs on this machine; use --workers")
    if config.teacher.checkpoint is None:
        raise ConfigError("teacher.checkpoint", None, f"{location} does not say where its teacher is")
    out = (local_folder(wanted.out) if wanted.out else directory.path / "pseudo_data").absolute()
    order = SynthesisOrder(str(out), wanted.images or images, wanted.shard_images, sources, fresh, pool)
    config = absolute_paths(config)
    teacher = {"teacher": str(config.teacher.checkpoint)}
    stage = Stage("synthesize", config, directory.location, "", teacher, asdict(order))
    began = time.monotonic()
    synthesize(stage, console)
    if is_follower():
        return {}
    result = describe(out) | {"run": directory.location, "seconds": round(time.monotonic() - began, 2)}
    write_atomic(out / "README.md", dataset_card(result))
    if out == directory.path / "pseudo_data":
        update_page(directory)
    directory.mirror.push()
    _print(result, console)
    return result


def describe(folder: Path) -> Result:
    """Describes a folder of shards: what it was made from, how large it is, and how often it has each class."""
    data = PseudoData.open(str(folder))
    files = sorted(folder.glob("train-*.parquet"))
    labels = np.concatenate([pq.read_table(file, columns=["label"])["label"].to_numpy() for file in files])
    classes = np.bincount(labels, minlength=data.about["num_classes"]).tolist()
    size = sum(file.stat().st_size for file in files)
    status = {"status": "finished", "command": "synthesize", "folder": str(folder)}
    return status | data.about | {"shards": len(files), "bytes": size, "classes": classes}


def _rounds(wanted: Wanted, directory: RunDirectory, config: Config) -> tuple[tuple[int, ...], int]:
    """The rounds of an inversion, and the number of its images."""
    files, rounds = sum(path.exists() for path in pool_files(directory.pool)), config.inversion.rounds
    if files != rounds:
        problem = f"has {files} of its {rounds} rounds in {directory.pool}; restore them, or train again with --fresh"
        raise ConfigError("RUN_DIR", directory.location, problem)
    images = rounds * config.inversion.images_of_round
    if wanted.images and wanted.images > images:
        raise ConfigError("--images", wanted.images, f"the run's pool has {images:,} images; use at most as many")
    if wanted.sources != "all":
        raise ConfigError("--sources", wanted.sources, "chooses snapshots of a generator; of an inversion use all")
    return tuple(range(rounds)), images


def _chosen(which: str, directory: RunDirectory) -> tuple[int, ...]:
    """Iterations of the snapshots, in order."""
    names = (re.fullmatch(r"generator_(\d+)\.safetensors", path.name) for path in files_of(directory.snapshots, "*"))
    there = sorted(int(name[1]) for name in names if name)
    if not there:
        problem = (
            "has no snapshots of a generator; train keeps them with evaluation.snapshots=5 and held-out images, "
            "and a finished run is only trained again with --fresh"
        )
        raise ConfigError("RUN_DIR", directory.location, problem)
    if which in ("all", "last"):
        return tuple(there if which == "all" else there[-1:])
    chosen = {int(text) for text in which.split(",")} if re.fullmatch(r"\d+(,\d+)*", which) else set()
    if not chosen or not chosen <= set(there):
        shown = ",".join(map(str, there))
        raise ConfigError("--sources", which, f"expected all, last, or some of {shown}: iterations of snapshots")
    return tuple(sorted(chosen))


def _print(result: Result, console: Console) -> None:
    each = result["bytes"] / result["images"]
    made, method = f"of {len(result['generators'])} rounds of inversion", " method=belief_matching"
    if result.get("method") != "inversion":
        made, method = f"of the generator after {', '.join(result['generators'])} iterations", ""
    console.print(
        f"{result['images']:,} pseudo-images in {result['shards']} shard(s), {result['bytes'] / 1e6:.1f} MB "
        f"({each:,.0f} bytes each), {made}",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"shards   {result['folder']}", soft_wrap=True, highlight=False)
    console.print(
        f"learn    python -m zskt_dist.train --config … pseudo_data={result['folder']} loss.beta=0{method}",
        soft_wrap=True,
        highlight=False,
    )
