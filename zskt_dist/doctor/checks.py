"""The single looks of `doctor`; nothing is imported before the look that needs it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from zskt_dist.launch.environment import RAY_CURRENT_CLUSTER, RAY_PORT, git_commit, named_ray_cluster, refused

if TYPE_CHECKING:
    from zskt_dist.config import Config

Status = Literal["ok", "warning", "problem"]

NEEDED = ("torch", "numpy", "pydantic", "PyYAML", "pyarrow", "safetensors", "rich")
"""Distributions without which no command trains."""
FURTHER = (
    *("torchvision", "timm", "ray", "mlflow", "deepspeed", "onnx", "onnxruntime"),
    *("pandas", "matplotlib", "scikit-learn", "datasets"),
)
GIB = 2**30
_LITTLE = 2 * GIB


class Answer(NamedTuple):
    """What a look has seen."""

    status: Status
    text: str
    advice: str | None = None
    details: dict[str, Any] = {}  # noqa: RUF012 (never changed)


class Look(NamedTuple):
    """One thing to look at.

    Attributes:
        advice: Where the look itself fails.
        essential: Whether every run needs it.
        seconds: After which it counts as hanging.
        asked: Whether a configuration asks for it.
    """

    name: str
    at: Callable[["Wanted"], Answer]
    advice: str
    essential: bool = False
    seconds: float = 30.0
    asked: Callable[["Wanted"], bool] = lambda _: False


class Wanted(NamedTuple):
    """What the configuration asks of the machine; the defaults, and no `config`, where it cannot be read."""

    runs_dir: str = "runs"
    tracking_uri: str | None = None
    device: str = "auto"
    launcher: str = "local"
    engine: str = "ddp"
    config: "Config | None" = None

    @classmethod
    def of(cls, config: "Config") -> "Wanted":
        return cls(config.runs_dir, config.tracking.uri, config.device, config.launch.kind, config.engine.kind, config)


def brief(error: BaseException) -> str:
    from zskt_dist.errors import UserError

    line = (str(error).strip().splitlines() or [""])[0][:300]
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def _python(_: Wanted) -> Answer:
    own, commit = _version("zskt-dist"), git_commit()
    code = f"zskt_dist {own or 'from a folder'}" + (f" at commit {commit[:12]}" if commit else "")
    details = {"python": sys.version.split()[0], "zskt_dist": own, "git_commit": commit}
    return Answer("ok", f"Python {details['python']}, {code}", None, details)


def _packages(_: Wanted) -> Answer:
    versions = {name: _version(name) for name in (*NEEDED, *FURTHER)}
    there = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    lacking = [name for name in NEEDED if versions[name] is None]
    if lacking:
        return Answer(
            "problem", f"not installed: {', '.join(lacking)}", "uv pip install " + " ".join(lacking), versions
        )
    if unfit := _unfit(versions):
        text = ", ".join(f"{name} {versions[name]} (needed: {wanted})" for name, wanted in unfit.items())
        advice = "uv pip install " + " ".join(f"'{name}{wanted}'" for name, wanted in unfit.items())
        return Answer("problem" if set(unfit) & set(NEEDED) else "warning", text, advice, versions)
    absent = ", ".join(name for name in FURTHER if versions[name] is None)
    return Answer("ok", there + (f"; without {absent}" if absent else ""), None, versions)


def _unfit(versions: Mapping[str, str | None]) -> dict[str, str]:
    """Which versions `zskt-dist` was not made for, and those it asks for; nothing where it is not installed itself."""
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        asked = [Requirement(line) for line in requires("zskt-dist") or ()]
    except (ImportError, PackageNotFoundError):
        return {}
    wanted = {canonicalize_name(each.name): each.specifier for each in asked}
    found = {name: (number, wanted.get(canonicalize_name(name))) for name, number in versions.items()}
    return {
        name: str(specifier)
        for name, (number, specifier) in found.items()
        if number and specifier and not specifier.contains(number, prereleases=True)
    }


def _torch(_: Wanted) -> Answer:
    import torch

    weight = torch.ones(2, 2, requires_grad=True)
    (weight @ weight).sum().backward()
    if weight.grad is None or weight.grad.tolist() != [[4.0, 4.0], [4.0, 4.0]]:
        return Answer("problem", f"torch {torch.__version__} computes a wrong gradient", "install torch anew")
    return Answer("ok", f"{torch.__version__}, computes a gradient")


def _cpu(_: Wanted) -> Answer:
    from zskt_dist.launch.devices import usable_cores

    usable, granted = usable_cores(), _granted_cores()
    text, details = f"{usable} of {os.cpu_count()} cores", {"usable_cores": usable, "granted_cores": granted}
    if granted is not None and granted < usable:
        advice = f"launch.cpus_per_worker={max(1, int(granted))}: more threads than cores slow training down"
        return Answer("warning", f"{text}, and the container grants the time of {granted:g}", advice, details)
    return Answer("ok", text, None, details)


def _cuda(wanted: Wanted) -> Answer:
    import torch

    from zskt_dist.launch.devices import local_workers, worker_device

    devices: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        devices.append({"name": torch.cuda.get_device_name(number), "free": free, "total": total})
    if devices:
        if wanted.config is not None and wanted.launcher == "local":
            for local_rank in range(local_workers(wanted.config)):
                worker_device(wanted.config, local_rank)
        shown = ", ".join(f"{each['name']} ({_gib(each['free'])} of {_gib(each['total'])} free)" for each in devices)
        return Answer("ok", shown, None, {"devices": devices})
    if shutil.which("nvidia-smi"):
        advice = "install a build of torch for the CUDA version of this driver (nvidia-smi shows it)"
        return Answer("problem" if wanted.device == "cuda" else "warning", "a driver, but torch sees no GPU", advice)
    if wanted.device == "cuda":
        return Answer("problem", "no GPU, and device=cuda asks for one", "use device=auto or device=cpu")
    return Answer("ok", "no GPU; runs go to the CPU", None, {"devices": []})


def _compiler(_: Wanted) -> Answer:
    from zskt_dist.speed.picks import compiler

    found, header = compiler(), Path(sysconfig.get_path("include"), "Python.h")
    if found is None:
        return Answer(
            "warning", "no C++ compiler, so no torch.compile on the CPU", "install g++ or clang++, or set CXX"
        )
    if not header.exists():
        advice = "install Python's headers (python3-dev), or use speed.compile=false"
        return Answer("warning", f"{found}, but no Python.h, so no torch.compile on the CPU", advice)
    return Answer("ok", f"{found} for torch.compile")


def _memory(_: Wanted) -> Answer:
    from zskt_dist.launch.free_memory import free_host_memory

    free = free_host_memory()
    if free is None:
        return Answer("warning", "this system does not tell how much is free", "watch it during the first iterations")
    if free < _LITTLE:
        advice = "--dry-run estimates a run; engine.micro_batch and engine.activation_checkpointing lower it"
        return Answer("warning", f"{_gib(free)} free", advice, {"free": free})
    return Answer("ok", f"{_gib(free)} free", None, {"free": free})


def _disk(wanted: Wanted) -> Answer:
    from zskt_dist.runs.storage import is_uri, working_copy

    folder = _existing(working_copy(wanted.runs_dir) if is_uri(wanted.runs_dir) else Path(wanted.runs_dir))
    free = shutil.disk_usage(folder).free
    if free < _LITTLE:
        advice = "make room, or set runs_dir to another disk; checkpoint.keep=1 halves what checkpoints take"
        return Answer("warning", f"{_gib(free)} free", advice, {"free": free})
    return Answer("ok", f"{_gib(free)} free", None, {"free": free})


def _runs_dir(wanted: Wanted) -> Answer:
    from zskt_dist.runs.storage import check_writable, is_uri

    if is_uri(wanted.runs_dir):
        check_writable(wanted.runs_dir)
        return Answer("ok", f"{wanted.runs_dir} takes files")
    try:
        folder = _existing(Path(wanted.runs_dir))
        with tempfile.TemporaryDirectory(prefix=".zskt-doctor-", dir=folder) as inside:
            Path(inside, "file").write_text("written")
    except OSError as error:
        text = f"{wanted.runs_dir} cannot be written: {error.strerror}"
        return Answer("problem", text, "make it a folder of yours, or choose another with runs_dir=…")
    return Answer("ok", f"{wanted.runs_dir} can be written")


def _ray(wanted: Wanted) -> Answer:
    number = _version("ray")
    if number is None:
        text, asked = "not installed; launch.kind=local needs none", wanted.launcher == "ray"
        return Answer("problem" if asked else "ok", text, "uv pip install 'ray[default,train,tune]'" if asked else None)
    _import("ray")
    named = named_ray_cluster()
    if named is None:
        return Answer("ok", f"{number}; no cluster is named, launch.kind=ray starts one here")
    address, by_user = named
    given = "RAY_ADDRESS" if by_user else "`ray start`"
    if (error := refused(address, RAY_PORT)) is not None:
        text = f"{number}; the cluster of {given}, {address}, does not answer: {error}"
        if by_user:
            advice = "start that cluster or correct the address, or unset RAY_ADDRESS, and one is started here"
            return Answer("problem", text, advice)
        return Answer("warning", text, f"launch.kind=ray starts another one here; rm {RAY_CURRENT_CLUSTER}")
    return Answer("ok", f"{number}; the cluster of {given} answers at {address}")


def _mlflow(wanted: Wanted) -> Answer:
    from zskt_dist.tracking.mlflow.store import check_reachable, tracking_uri

    uri = tracking_uri(wanted.tracking_uri)
    if uri is None:
        return Answer("ok", "switched off (tracking.uri=none)")
    number = _version("mlflow")
    if number is None:
        advice = "uv pip install mlflow; or tracking.uri=none"
        return Answer("warning", "not installed: runs are recorded in their directories only", advice)
    if (path := _store_not_to_be_asked(uri)) is not None:
        nearest = _existing(path)
        if not (nearest.is_dir() or path.is_file()) or not os.access(nearest, os.W_OK):
            return Answer("problem", f"{number}; {path} cannot be written", "name another store with tracking.uri=…")
        return Answer("ok", f"{number}; {uri} {'can be written' if path.is_dir() else 'will be made by the first run'}")
    advice = "start the server or correct tracking.uri; runs go on without it, and zskt_dist.replay uploads them later"
    if uri.startswith(("http://", "https://")) and (error := refused(uri, 443 if uri.startswith("https") else 80)):
        return Answer("problem", f"{number}; {uri} does not answer: {error}", advice)
    try:
        check_reachable(uri)
    except Exception as error:  # whatever MLflow raises
        return Answer("problem", f"{number}; {uri} cannot be used: {brief(error)}", advice)
    return Answer("ok", f"{number}; {uri} answers")


def _deepspeed(wanted: Wanted) -> Answer:
    from zskt_dist.speed.picks import compiler

    number, asked = _version("deepspeed"), wanted.engine == "deepspeed"
    if number is None:
        advice = "uv pip install 'zskt-dist[deepspeed]', or engine.kind=ddp" if asked else None
        return Answer("problem" if asked else "ok", "not installed; engine.kind=ddp needs none", advice)
    _import("deepspeed")
    lacking = [
        what
        for what, there in (("a C++ compiler", compiler()), ("ninja", shutil.which("ninja") or _version("ninja")))
        if not there
    ]
    if lacking:
        text = f"{number}, without {' and '.join(lacking)}: it cannot build its fused operations"
        return Answer("warning", text, "install g++ and ninja (uv pip install ninja)")
    return Answer("ok", f"{number}, can build its operations")


LOOKS = (
    Look("python", _python, "install Python 3.11 or newer"),
    Look("packages", _packages, "make setup, or uv pip install -r requirements.txt", essential=True),
    Look(
        "torch", _torch, "install torch for this machine: https://pytorch.org/get-started", essential=True, seconds=180
    ),
    Look("cpu", _cpu, "set launch.cpus_per_worker"),
    Look(
        "gpu",
        _cuda,
        "device=cpu does without",
        seconds=60,
        asked=lambda wanted: wanted.device == "cuda" and wanted.launcher == "local",  # Ray has those of other machines
    ),
    Look("compiler", _compiler, "speed.compile=false does without"),
    Look("memory", _memory, "watch it during the first iterations"),
    Look("disk", _disk, "set runs_dir to a disk that answers"),
    Look("runs_dir", _runs_dir, "choose another folder or store with runs_dir=…", essential=True, seconds=60),
    Look(
        "ray",
        _ray,
        "reinstall ray, or use launch.kind=local",
        seconds=90,
        asked=lambda wanted: wanted.launcher == "ray",
    ),
    Look("mlflow", _mlflow, "reinstall mlflow, or use tracking.uri=none", seconds=60),
    Look(
        "deepspeed",
        _deepspeed,
        "reinstall deepspeed, or use engine.kind=ddp",
        seconds=120,
        asked=lambda wanted: wanted.engine == "deepspeed",
    ),
)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _import(package: str) -> None:
    """In a process of its own, for it may print, start threads or crash; raises where it fails."""
    command = [sys.executable, "-c", f"import {package}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=80)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"import {package} fails: {last}")


def _existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _store_not_to_be_asked(uri: str) -> Path | None:
    """Of an SQLite file without tables, and of a folder: MLflow would make what is missing there."""
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        return None if file.exists() and file.stat().st_size else file
    is_folder = uri.startswith("file:") or ("://" not in uri and uri != "databricks")
    allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")  # else it refuses, untouched
    return Path(unquote(urlsplit(uri).path)) if is_folder and allowed else None


def _granted_cores() -> float | None:
    """Of a control group (version 2) with a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
