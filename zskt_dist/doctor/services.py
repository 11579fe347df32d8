"""Checks of what a run writes to and runs with: disk, run directories, Ray, MLflow, DeepSpeed."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from zskt_dist.doctor.check import LITTLE, Outcome, Requirements, existing_folder
from zskt_dist.errors import one_line
from zskt_dist.extras import install, installed_version
from zskt_dist.files import describe_size
from zskt_dist.launch.environment import RAY_PORT, named_ray_cluster, ray_current_cluster, refused


def check_disk(requirements: Requirements) -> Outcome:
    from zskt_dist.runs.locations import is_uri, working_copy

    folder = existing_folder(
        working_copy(requirements.runs_dir) if is_uri(requirements.runs_dir) else Path(requirements.runs_dir)
    )
    free = shutil.disk_usage(folder).free
    if free < LITTLE:
        advice = "make room, or set runs_dir to another disk; checkpoint.keep=1 halves what checkpoints take"
        return Outcome("warning", f"{describe_size(free)} free", advice, {"free": free})
    return Outcome("ok", f"{describe_size(free)} free", None, {"free": free})


def check_runs_dir(requirements: Requirements) -> Outcome:
    from zskt_dist.runs.locations import check_writable, is_uri

    if is_uri(requirements.runs_dir):
        check_writable(requirements.runs_dir)
        return Outcome("ok", f"{requirements.runs_dir} takes files")
    try:
        folder = existing_folder(Path(requirements.runs_dir))
        with tempfile.TemporaryDirectory(prefix=".zskt-doctor-", dir=folder) as inside:
            Path(inside, "file").write_text("written")
    except OSError as error:
        text = f"{requirements.runs_dir} cannot be written: {error.strerror}"
        return Outcome("problem", text, "make it a folder of yours, or choose another with runs_dir=…")
    return Outcome("ok", f"{requirements.runs_dir} can be written")


def check_ray(requirements: Requirements) -> Outcome:
    number = installed_version("ray")
    if number is None:
        text, asked = "not installed; launch.kind=local needs none", requirements.launcher == "ray"
        return Outcome("problem" if asked else "ok", text, install("ray") if asked else None)
    _import("ray")
    named = named_ray_cluster()
    if named is None:
        return Outcome("ok", f"{number}; no cluster is named, launch.kind=ray starts one here")
    address, by_user = named
    given = "RAY_ADDRESS" if by_user else "`ray start`"
    if (error := refused(address, RAY_PORT)) is not None:
        text = f"{number}; the cluster of {given}, {address}, does not answer: {error}"
        if by_user:
            advice = "start that cluster or correct the address, or unset RAY_ADDRESS, and one is started here"
            return Outcome("problem", text, advice)
        return Outcome("warning", text, f"launch.kind=ray starts another one here; rm {ray_current_cluster()}")
    return Outcome("ok", f"{number}; the cluster of {given} answers at {address}")


def check_mlflow(requirements: Requirements) -> Outcome:
    from zskt_dist.tracking.mlflow.store import check_reachable, tracking_uri

    uri = tracking_uri(requirements.tracking_uri)
    if uri is None:
        return Outcome("ok", "switched off (tracking.uri=none)")
    number = installed_version("mlflow")
    if number is None:
        advice = f"{install('mlflow')}; or tracking.uri=none"
        return Outcome("warning", "not installed: runs are recorded in their directories only", advice)
    if (path := _store_not_to_be_asked(uri)) is not None:
        nearest = existing_folder(path)
        if not (nearest.is_dir() or path.is_file()) or not os.access(nearest, os.W_OK):
            return Outcome("problem", f"{number}; {path} cannot be written", "name another store with tracking.uri=…")
        return Outcome(
            "ok", f"{number}; {uri} {'can be written' if path.is_dir() else 'will be made by the first run'}"
        )
    advice = "start the server or correct tracking.uri; runs go on without it, and zskt_dist.replay uploads them later"
    if uri.startswith(("http://", "https://")) and (error := refused(uri, 443 if uri.startswith("https") else 80)):
        return Outcome("problem", f"{number}; {uri} does not answer: {error}", advice)
    try:
        check_reachable(uri)
    except Exception as error:  # whatever MLflow raises
        return Outcome("problem", f"{number}; {uri} cannot be used: {one_line(error)}", advice)
    return Outcome("ok", f"{number}; {uri} answers")


def check_deepspeed(requirements: Requirements) -> Outcome:
    from zskt_dist.speed.fast_paths import compiler

    number, asked = installed_version("deepspeed"), requirements.engine == "deepspeed"
    if number is None:
        advice = f"{install('deepspeed')}; or engine.kind=ddp" if asked else None
        return Outcome("problem" if asked else "ok", "not installed; engine.kind=ddp needs none", advice)
    _import("deepspeed")
    lacking = [
        what
        for what, there in (
            ("a C++ compiler", compiler()),
            ("ninja", shutil.which("ninja") or installed_version("ninja")),
        )
        if not there
    ]
    if lacking:
        text = f"{number}, without {' and '.join(lacking)}: it cannot build its fused operations"
        return Outcome("warning", text, "install g++ and ninja (uv pip install ninja)")
    return Outcome("ok", f"{number}, can build its operations")


def _import(package: str) -> None:
    """In a process of its own, for it may print, start threads or crash; raises where it fails."""
    command = [sys.executable, "-c", f"import {package}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=80)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"import {package} fails: {last}")


def _store_not_to_be_asked(uri: str) -> Path | None:
    """Of an SQLite file without tables, and of a folder: MLflow would make what is missing there."""
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        return None if file.exists() and file.stat().st_size else file
    is_folder = uri.startswith("file:") or ("://" not in uri and uri != "databricks")
    allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")  # else it refuses, untouched
    return Path(unquote(urlsplit(uri).path)) if is_folder and allowed else None
