"""All checks of `doctor`, in their order; nothing is imported before the check that needs it."""

from zskt_dist.doctor import machine, services
from zskt_dist.doctor.check import Check

CHECKS = (
    Check("python", machine.check_python, "install Python 3.11 or newer"),
    Check("packages", machine.check_packages, "make setup, or uv pip install -r requirements.txt", essential=True),
    Check(
        "torch",
        machine.check_torch,
        "install torch for this machine: https://pytorch.org/get-started",
        essential=True,
        seconds=180,
    ),
    Check("cpu", machine.check_cpu, "set launch.cpus_per_worker"),
    Check(
        "gpu",
        machine.check_cuda,
        "device=cpu does without",
        seconds=60,
        # Ray has GPUs of other machines.
        required_by=lambda requirements: requirements.device == "cuda" and requirements.launcher == "local",
    ),
    Check("compiler", machine.check_compiler, "speed.compile=false does without"),
    Check("memory", machine.check_memory, "watch it during the first iterations"),
    Check("disk", services.check_disk, "set runs_dir to a disk that answers"),
    Check(
        "runs_dir",
        services.check_runs_dir,
        "choose another folder or store with runs_dir=…",
        essential=True,
        seconds=60,
    ),
    Check(
        "ray",
        services.check_ray,
        "reinstall ray, or use launch.kind=local",
        seconds=90,
        required_by=lambda requirements: requirements.launcher == "ray",
    ),
    Check("mlflow", services.check_mlflow, "reinstall mlflow, or use tracking.uri=none", seconds=60),
    Check(
        "deepspeed",
        services.check_deepspeed,
        "reinstall deepspeed, or use engine.kind=ddp",
        seconds=120,
        required_by=lambda requirements: requirements.engine == "deepspeed",
    ),
)
