"""The Slurm script: linted, and run against stand-ins for Slurm and Ray that keep their contracts."""

import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, program, training_config
from tests.support.commands import REPOSITORY

SCRIPTS = [path for path in CLUSTER.rglob("*") if path.is_file() and path.read_bytes().startswith(b"#!")]
SCRIPT = CLUSTER / "slurm" / "train.sbatch"
DIRECTIVES = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", SCRIPT.read_text(), re.MULTILINE))

# Each stand-in notes how it was called. `python` is the driver: it saves when asked to and ends with $AFTER_SAVING, or
# ends at once with $DRIVER_EXIT. With $NO_DRIVER Ray hangs before it starts one.
STAND_INS = {
    "srun": 'printf "%q " "$@" >"$NOTES/srun"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": """
        printf "%q " "$@" >"$NOTES/ray"; printf "%s" "$RAY_AUTH_MODE" >"$NOTES/mode"
        stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$NOTES/permissions"; cp "$RAY_AUTH_TOKEN_PATH" "$NOTES/token"
        [[ -n ${NO_DRIVER:-} ]] && touch "$NOTES/running" && exec sleep 60
        while [[ $1 != -- ]]; do shift; done; shift; "$@" """,
    "python": """
        printf "%q " python "$@" >"$NOTES/python"
        trap 'echo saved >"$NOTES/saved"; exit "${AFTER_SAVING:-143}"' TERM
        touch "$NOTES/running"; [[ -n ${DRIVER_EXIT:-} ]] && exit "$DRIVER_EXIT"
        while :; do sleep 0.02; done""",
    "scontrol": 'printf "%s " "$@" >"$NOTES/scontrol"',
    "hostname": "echo 192.0.2.7 198.51.100.7",
}


@dataclass
class Submitted:
    """The script, running as the batch step of job 42."""

    process: subprocess.Popen[str]
    notes: Path
    home: Path

    def note(self, name: str) -> str:
        path = self.notes / name
        return path.read_text().strip() if path.exists() else ""

    def wait_until_running(self) -> None:
        deadline = time.monotonic() + 20
        while not (self.notes / "running").exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def finish(self) -> int:
        output, _ = self.process.communicate(timeout=20)
        assert not list(self.home.glob(".ray/tokens/*")), "the token goes with the job"
        assert self.process.returncode is not None, output
        return self.process.returncode


def _submit(folder: Path, *arguments: str, **environment: str) -> Submitted:
    notes, home, programs = folder / "notes", folder / "home", folder / ".venv" / "bin"
    for path in (notes, home, programs):
        path.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_CPUS_PER_TASK": "8"}
    slurm |= {"SLURM_JOB_ID": "42", "SLURM_JOB_NAME": "table1-seed0", "NOTES": str(notes), "HOME": str(home)}
    process = subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        cwd=folder,
        env=os.environ | slurm | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Submitted(process, notes, home)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script: Path) -> None:
    shellcheck = program("shellcheck")
    assert shellcheck
    answer = subprocess.run(
        [shellcheck, "--norc", "--shell=bash", "--enable=quote-safe-variables", str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


def test_one_job_of_a_name_at_a_time_and_it_comes_back() -> None:
    assert SCRIPT in SCRIPTS
    assert DIRECTIVES["dependency"] == "singleton"
    assert DIRECTIVES["ntasks-per-node"] == "1"
    assert {"exclusive", "requeue"} <= DIRECTIVES.keys()
    assert re.fullmatch(r"B:USR1@\d{3}", DIRECTIVES["signal"])


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_the_command_it_runs(tmp_path: Path, gpus: int) -> None:
    config_file = "configs/cifar10_wrn-40-2_wrn-16-1.yaml"
    job = _submit(tmp_path, "--config", config_file, "seed=3", SLURM_GPUS_ON_NODE=str(gpus), DRIVER_EXIT="0")
    assert job.finish() == 0
    config = training_config(shlex.split(job.note("python")))
    assert config.name == "table1-seed0"
    assert config.seed == 3
    assert config.launch.kind == "ray"
    assert config.launch.workers == 2 * max(gpus, 1)
    assert config.launch.workers * (config.launch.cpus_per_worker or 1) == 2 * 8
    assert config.runs_dir == str(tmp_path / "runs")
    assert config.tracking.uri == "none"
    assert job.note("scontrol") == ""


def test_ray_is_started_as_the_installed_one_wants_it(tmp_path: Path) -> None:
    from ray.scripts.scripts import start as ray_start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    job = _submit(tmp_path, DRIVER_EXIT="0")
    assert job.finish() == 0
    command, *words = shlex.split(job.note("ray"))
    assert command == "symmetric-run"
    assert command in (REPOSITORY / "docs" / "clusters" / "slurm.md").read_text()
    mine = words[: words.index("--")]
    parsed = symmetric_run.make_context("ray symmetric-run", list(mine), resilient_parsing=True).params
    assert parsed["address"] == "192.0.2.7:6379"
    assert parsed["min_nodes"] == 2
    started = ray_start.make_context("ray start", curate_and_validate_ray_start_args(mine)).params
    assert started["num_cpus"] == 8
    assert started["num_gpus"] == 1
    assert started["dashboard_host"] == "127.0.0.1"
    assert "--ntasks=2" in shlex.split(job.note("srun"))


def test_the_token_is_the_jobs_own_and_private(tmp_path: Path) -> None:
    jobs = [_submit(tmp_path / name, DRIVER_EXIT="0") for name in ("a", "b")]
    assert [job.finish() for job in jobs] == [0, 0]
    for job in jobs:
        assert job.note("mode") == "token"
        assert job.note("permissions") == "600"
        assert re.fullmatch(r"[0-9a-f]{64}", job.note("token"))
    assert jobs[0].note("token") != jobs[1].note("token")


def test_at_the_time_limit_the_driver_saves_and_the_job_queues_again(tmp_path: Path) -> None:
    job = _submit(tmp_path)
    job.wait_until_running()
    job.process.send_signal(signal.SIGUSR1)
    assert job.finish() == 143
    assert job.note("saved") == "saved"
    assert job.note("scontrol") == "requeue 42"


def test_at_the_time_limit_a_run_that_just_finishes_stays_finished(tmp_path: Path) -> None:
    job = _submit(tmp_path, AFTER_SAVING="0")
    job.wait_until_running()
    job.process.send_signal(signal.SIGUSR1)
    assert job.finish() == 0
    assert job.note("scontrol") == ""


def test_at_the_time_limit_a_job_without_a_driver_yet_queues_again(tmp_path: Path) -> None:
    job = _submit(tmp_path, NO_DRIVER="1")
    job.wait_until_running()
    job.process.send_signal(signal.SIGUSR1)
    assert job.finish() == 128 + signal.SIGTERM
    assert job.note("scontrol") == "requeue 42"


@pytest.mark.parametrize("code", [2, 143])
def test_what_ends_by_itself_does_not_queue_again(tmp_path: Path, code: int) -> None:
    job = _submit(tmp_path, DRIVER_EXIT=str(code))
    assert job.finish() == code
    assert job.note("scontrol") == ""
