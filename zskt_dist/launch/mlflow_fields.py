"""What an MLflow run shows of a configuration and a result: tags to filter by, metrics to compare."""

import time
from typing import Any

from zskt_dist.config import Config
from zskt_dist.files import read_json
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tracking.base import Row
from zskt_dist.training.job import Job

_MEANS = {
    "accuracy": ("student", "accuracy_last"),
    "agreement": ("student", "agreement"),
    "teacher_accuracy": ("teacher", "accuracy"),
    "mte": ("mte", "value"),
}
"""Metrics of several seeds, named as those of single runs, and where `result.json` has them."""


def job_tags(job: Job) -> dict[str, str]:
    """Tags that are known before training."""
    goal = job.goal
    return {
        "command": goal.task.command,
        "config_hash": goal.hash,
        "launcher": job.launcher,
        "run_directory": goal.run,
        **_networks_and_data(job.config, "pair" if goal.task.needs else goal.task.role),
        **({"mlflow.source.git.commit": job.git_commit, "git_commit": job.git_commit} if job.git_commit else {}),
    }


def result_tags(config: Config, result: dict[str, Any]) -> dict[str, str]:
    teacher, student = result["teacher"], result["student"]
    keys = ("command", "config_hash", "launcher", "world_size", "git_commit")
    tags = {key: str(result[key]) for key in keys if result[key] is not None}
    tags |= _networks_and_data(config, "pair" if teacher and student else "student" if student else "teacher")
    return tags | ({"student_sha256": student["sha256"]} if student else {})


def group_tags(directory: RunDirectory, config: Config) -> dict[str, str]:
    """Tags of the run under which those of several seeds are nested."""
    command = str((read_json(directory.begun) or {}).get("command"))
    seeds = ",".join(str(seed) for seed in config.seeds or ())
    return {"command": command, "seeds": seeds, **_networks_and_data(config, "pair")}


def parent_tag(run: RunDirectory, uri: str) -> dict[str, str]:
    """MLflow's own tag for a run that is shown under another; {} while the other is not in this store."""
    group = run.group()
    known = group and read_json(group.tracking)
    return {"mlflow.parentRunId": known["run_id"]} if known and known["tracking_uri"] == uri else {}


def final_scores(directory: RunDirectory, result: dict[str, Any]) -> Row | None:
    """What was estimated at the end and what `evaluate` has measured last, as metrics at the last iteration."""
    scores = _estimates(result)
    answer = read_json(directory.evaluation / "evaluation.json")
    return _row(result, scores | (_evaluation(answer) if answer else {}))


def mean_scores(result: dict[str, Any]) -> Row | None:
    """Means over seeds, and their standard deviations as `…_std`."""
    scores = {
        name + suffix: value
        for name, (section, key) in _MEANS.items()
        for suffix in ("", "_std")
        if (value := (result[section] or {}).get(key + suffix)) is not None
    }
    return _row(result, scores | _estimates(result))


def _row(result: dict[str, Any], scores: Row) -> Row | None:
    return {"iteration": result["iterations"], "time": round(time.time() * 1000), **scores} if scores else None


def _estimates(result: dict[str, Any]) -> Row:
    """What was estimated on images that are not real."""
    sources = (result.get("estimates") or {}).get("sources") or {}
    return {f"estimate_{source}_{name}": value for source, entry in sources.items() for name, value in entry.items()}


def _evaluation(answer: dict[str, Any]) -> Row:
    """The main numbers of `evaluation.json`."""
    scores = {f"ece_{name}": values["ece"] for name, values in answer["calibration"].items()}
    scores |= {"teacher_accuracy": answer["teacher_accuracy"], "mte": (answer["mte"] or {}).get("value")}
    return {name: value for name, value in scores.items() if value is not None}


def _networks_and_data(config: Config, trained: str) -> dict[str, str]:
    pair = f"{config.teacher.arch} -> {config.student.arch}" if trained == "pair" else getattr(config, trained).arch
    return {"pair": pair, "dataset": config.data.name}
