"""Checks of this machine: Python and its packages, processors, compiler, memory."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from zskt_dist.doctor.check import LITTLE, Outcome, Requirements
from zskt_dist.extras import installed_version
from zskt_dist.files import describe_size
from zskt_dist.launch.environment import git_commit

NEEDED = ("torch", "numpy", "pydantic", "PyYAML", "pyarrow", "safetensors", "rich", "pillow")
"""Distributions without which no command trains."""
FURTHER = (
    *("torchvision", "timm", "ray", "mlflow", "deepspeed", "onnx", "onnxruntime"),
    *("pandas", "matplotlib", "scipy", "datasets"),
)


def check_python(_: Requirements) -> Outcome:
    own, commit = installed_version("zskt-dist"), git_commit()
    code = f"zskt_dist {own or 'from a folder'}" + (f" at commit {commit[:12]}" if commit else "")
    details = {"python": sys.version.split()[0], "zskt_dist": own, "git_commit": commit}
    return Outcome("ok", f"Python {details['python']}, {code}", None, details)


def check_packages(_: Requirements) -> Outcome:
    versions = {name: installed_version(name) for name in (*NEEDED, *FURTHER)}
    there = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    lacking = [name for name in NEEDED if versions[name] is None]
    if lacking:
        return Outcome(
            "problem", f"not installed: {', '.join(lacking)}", "uv pip install " + " ".join(lacking), versions
        )
    if unfit := _unfit(versions):
        text = ", ".join(f"{name} {versions[name]} (needed: {wanted})" for name, wanted in unfit.items())
        advice = "uv pip install " + " ".join(f"'{name}{wanted}'" for name, wanted in unfit.items())
        return Outcome("problem" if set(unfit) & set(NEEDED) else "warning", text, advice, versions)
    absent = ", ".join(name for name in FURTHER if versions[name] is None)
    return Outcome("ok", there + (f"; without {absent}" if absent else ""), None, versions)


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


def check_torch(_: Requirements) -> Outcome:
    import torch

    weight = torch.ones(2, 2, requires_grad=True)
    (weight @ weight).sum().backward()
    if weight.grad is None or weight.grad.tolist() != [[4.0, 4.0], [4.0, 4.0]]:
        return Outcome("problem", f"torch {torch.__version__} computes a wrong gradient", "install torch anew")
    return Outcome("ok", f"{torch.__version__}, computes a gradient")


def check_cpu(_: Requirements) -> Outcome:
    from zskt_dist.launch.devices import usable_cores

    usable, granted = usable_cores(), _granted_cores()
    text, details = f"{usable} of {os.cpu_count()} cores", {"usable_cores": usable, "granted_cores": granted}
    if granted is not None and granted < usable:
        advice = f"launch.cpus_per_worker={max(1, int(granted))}: more threads than cores slow training down"
        return Outcome("warning", f"{text}, and the container grants the time of {granted:g}", advice, details)
    return Outcome("ok", text, None, details)


def check_cuda(requirements: Requirements) -> Outcome:
    import torch

    from zskt_dist.launch.devices import local_workers, worker_device

    devices: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        devices.append({"name": torch.cuda.get_device_name(number), "free": free, "total": total})
    if devices:
        if requirements.config is not None and requirements.launcher == "local":
            for local_rank in range(local_workers(requirements.config)):
                worker_device(requirements.config, local_rank)
        shown = ", ".join(
            f"{each['name']} ({describe_size(each['free'])} of {describe_size(each['total'])} free)" for each in devices
        )
        return Outcome("ok", shown, None, {"devices": devices})
    if shutil.which("nvidia-smi"):
        advice = "install a build of torch for the CUDA version of this driver (nvidia-smi shows it)"
        return Outcome(
            "problem" if requirements.device == "cuda" else "warning", "a driver, but torch sees no GPU", advice
        )
    if requirements.device == "cuda":
        return Outcome("problem", "no GPU, and device=cuda asks for one", "use device=auto or device=cpu")
    return Outcome("ok", "no GPU; runs go to the CPU", None, {"devices": []})


def check_compiler(_: Requirements) -> Outcome:
    from zskt_dist.speed.fast_paths import compiler

    found, header = compiler(), Path(sysconfig.get_path("include"), "Python.h")
    if found is None:
        return Outcome(
            "warning", "no C++ compiler, so no torch.compile on the CPU", "install g++ or clang++, or set CXX"
        )
    if not header.exists():
        advice = "install Python's headers (python3-dev), or use speed.compile=false"
        return Outcome("warning", f"{found}, but no Python.h, so no torch.compile on the CPU", advice)
    return Outcome("ok", f"{found} for torch.compile")


def check_memory(_: Requirements) -> Outcome:
    from zskt_dist.launch.free_memory import free_host_memory

    free = free_host_memory()
    if free is None:
        return Outcome("warning", "this system does not tell how much is free", "watch it during the first iterations")
    if free < LITTLE:
        advice = "--dry-run estimates a run; engine.micro_batch and engine.activation_checkpointing lower it"
        return Outcome("warning", f"{describe_size(free)} free", advice, {"free": free})
    return Outcome("ok", f"{describe_size(free)} free", None, {"free": free})


def _granted_cores() -> float | None:
    """Of a control group (version 2) with a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
