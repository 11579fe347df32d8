"""What MLflow shows of a run: its name, its description, tags, the data it read, and final scores."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zskt_dist.config import Config, flatten
from zskt_dist.config.keys import is_under
from zskt_dist.files import read_json
from zskt_dist.runs.conclusion import conclusion, next_steps
from zskt_dist.runs.directory import Differs, RunDirectory
from zskt_dist.runs.locations import join
from zskt_dist.tasks.registry import all_reads, task_of
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.mlflow.runs import NOTE, DataInput
from zskt_dist.tracking.mlflow.store import RunAddress
from zskt_dist.training.job import Job

_METHODS = {
    "pretrain": "teacher",
    "scratch": "no teacher",
    "transfer": "zero-shot",
    "inversion": "inversion",
    "pseudo_data": "from pseudo-data",
    "distill": "distilled",
    "finetune": "zero-shot + finetuning",
}
"""What runs of a task are called, by its name."""
_NAMED_ALREADY = ("method", "seeds", "teacher.arch", "student.arch", "data.name", "data.root", "evaluation", "launch")
"""Keys that a name leaves out, as it says them in other words, or they change no student."""
_NAME_LENGTH = 250
"""Most characters of a name that MLflow keeps."""
_DIGEST = 16
"""Digits of a SHA-256 that MLflow shows; it keeps 36 at most."""
SWEPT = "Swept/"
"""Opens further parameters with the keys that a sweep varies: MLflow sorts by name, and capitals come first."""
_MEANS = {
    "accuracy": ("student", "accuracy_last"),
    "agreement": ("student", "agreement"),
    "teacher_accuracy": ("teacher", "accuracy"),
    "mte": ("mte", "value"),
}
"""Metrics of several seeds, named as those of single runs, and their places in `result.json`."""


def run_name(folder: str, command: str, config: Config, differs: Differs) -> str:
    """Pair, method and what differs from other runs, and last the folder's name, by which the run is found."""
    task = task_of(command, config)
    trained = "pair" if task.needs else task.role
    words = [f"{len(config.seeds)} seeds"] if config.seeds is not None else []
    for key in dict.fromkeys((*differs.swept, *differs.typed)):
        if is_under(key, all_reads(task)) and not is_under(key, _NAMED_ALREADY):
            words += [f"{name}={_short(value)}" for name, value in flatten(config) if is_under(name, [key])]
    start = f"{_networks_and_data(config, trained)['pair'].replace('->', '→')}, {_METHODS[task.name]}"
    end, more = f" ({folder})", ", " * bool(words) + " ".join(words)
    room = _NAME_LENGTH - len(start) - len(end)
    return start + (more if len(more) <= room else more[: room - 1] + "…") + end


def swept_params(config: Config, swept: Sequence[str]) -> dict[str, Any]:
    """Parameters that repeat what a sweep, or several seeds, vary, first on MLflow's comparison page."""
    return {SWEPT + key: value for key, value in flatten(config) if is_under(key, swept)} if swept else {}


def description(result: Mapping[str, Any], config: Config) -> str:
    """The conclusion of a finished run in Markdown, with what to do next."""
    text = " ".join(conclusion(result))
    if not text:
        teacher, of_them = result["teacher"], f"of the test images of {result['dataset']}"
        measured = teacher.get("accuracy")
        text = f"A teacher ({teacher['arch']})" + (f", right on {measured:.2%} {of_them}." if measured else ".")
    steps = next_steps(result, join(config.runs_dir, result["experiment"], result["name"]))
    return "\n".join([text, *(["", "Next:", ""] if steps else []), *(f"- {why}: `{how}`" for why, how in steps)])


def data_inputs(result: Mapping[str, Any]) -> list[DataInput]:
    """The images that a run has read, with their digests; of one that was trained without data it says so."""
    found = []
    if seed := result.get("seed_images"):
        found.append(DataInput("inversion.seed_images", seed["sha256"][:_DIGEST], "training", seed["images"]))
    elif result.get("method"):
        found.append(DataInput("data-free, no image", "none", "training", 0))
    if test := result.get("test_images"):
        found.append(DataInput(result["dataset"], test["sha256"][:_DIGEST], "testing", test["images"]))
    return found


def source_tags(command: str, git_commit: str | None = None) -> dict[str, str]:
    """What MLflow shows as the source of a run: the command, and the commit of its code where that is known."""
    commit = {"mlflow.source.git.commit": git_commit, "git_commit": git_commit} if git_commit else {}
    return {"mlflow.source.name": f"zskt {command}", "mlflow.source.type": "LOCAL", **commit}


def job_tags(job: Job) -> dict[str, str]:
    """Tags that are known before training."""
    goal = job.goal
    return {
        "command": goal.task.command,
        "config_hash": goal.hash,
        "launcher": job.launcher,
        "run_directory": goal.run,
        **_networks_and_data(job.config, "pair" if goal.task.needs else goal.task.role),
        **source_tags(goal.task.command, job.git_commit),
    }


def result_tags(config: Config, result: dict[str, Any]) -> dict[str, str]:
    teacher, student = result["teacher"], result["student"]
    keys = ("command", "config_hash", "launcher", "world_size")
    tags = {key: str(result[key]) for key in keys if result[key] is not None}
    tags |= source_tags(result["command"], result["git_commit"]) | {NOTE: description(result, config)}
    tags |= _networks_and_data(config, "pair" if teacher and student else "student" if student else "teacher")
    return tags | ({"student_sha256": student["sha256"]} if student else {})


def group_tags(directory: RunDirectory, config: Config) -> dict[str, str]:
    """Tags of the run under which those of several seeds are nested."""
    command = str((read_json(directory.begun) or {}).get("command"))
    seeds = ",".join(str(seed) for seed in config.seeds or ())
    result = directory.finished()
    tags = {"command": command, "seeds": seeds, **_networks_and_data(config, "pair"), **source_tags(command)}
    return tags | ({NOTE: description(result, config)} if result else {})


def parent_tag(run: RunDirectory, uri: str) -> dict[str, str]:
    """MLflow's own tag for a run that is shown under another; {} while the other is not in this store."""
    group = run.group()
    known = group and RunAddress.read(group.tracking)
    return {"mlflow.parentRunId": known.run_id} if known and known.tracking_uri == uri else {}


def final_scores(directory: RunDirectory, result: dict[str, Any]) -> Row | None:
    """The final estimates and the newest measurements of `evaluate`, as metrics at the last iteration."""
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
    """Metrics that were estimated on images that are not real."""
    sources = (result.get("estimates") or {}).get("sources") or {}
    return {f"estimate_{source}_{name}": value for source, entry in sources.items() for name, value in entry.items()}


def _evaluation(answer: dict[str, Any]) -> Row:
    """The main numbers of `evaluation.json`."""
    scores = {f"ece_{name}": values["ece"] for name, values in answer["calibration"].items()}
    scores |= {"teacher_accuracy": answer["teacher_accuracy"], "mte": (answer["mte"] or {}).get("value")}
    return {name: value for name, value in scores.items() if value is not None}


def _short(value: object) -> str:
    """Of a path its last part."""
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def _networks_and_data(config: Config, trained: str) -> dict[str, str]:
    pair = f"{config.teacher.arch} -> {config.student.arch}" if trained == "pair" else getattr(config, trained).arch
    return {"pair": pair, "dataset": config.data.name}
