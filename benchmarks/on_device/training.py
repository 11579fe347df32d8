"""Teachers and zero-shot students of full length: the product's own jobs, which a deadline asks to stop."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.on_device.session import Entry, OutOfTime, Session
from benchmarks.subject import CLASSES, configured
from zskt_dist.config import Config
from zskt_dist.data import open_dataset
from zskt_dist.distributed.world import World
from zskt_dist.errors import Interrupted
from zskt_dist.evaluation.scorer import Evaluator
from zskt_dist.files import sha256_of
from zskt_dist.launch import local
from zskt_dist.networks.building import read_network
from zskt_dist.networks.weights import read_about, save_weights
from zskt_dist.runs.directory import Result, RunDirectory
from zskt_dist.tracking.local import read_history
from zskt_dist.training.job import Job

TEACHERS = {"wrn-40-2": 0.947, "wrn-40-1": 0.932, "wrn-16-2": 0.940}
"""Accuracies to reach (the paper's Table 1, rounded to the tenth)."""
PAIRS = (
    ("wrn-40-2", "wrn-16-1"),
    ("wrn-40-2", "wrn-16-2"),
    ("wrn-40-2", "wrn-40-1"),
    ("wrn-40-1", "wrn-16-2"),
    ("wrn-16-2", "wrn-16-1"),
    ("wrn-40-1", "wrn-16-1"),
)
RECIPES: dict[str, tuple[str, ...]] = {
    "paper": (),
    "short": ("supervised.iterations=30000", "supervised.milestones=[0.4,0.7,0.9]"),
}
SHARDS = {"train": 50_000, "test": 10_000}
_TOY_PAIR = ("wrn-10-1", "wrn-10-1")
_TOY = (
    "iterations=40",
    "supervised.iterations=8",
    "supervised.batch_size=8",
    "batch_size=4",
    "transfer.student_steps=1",
    "generator.channels=[8,4]",
    "evaluation.every=20",
    "evaluation.held_out_images=4",
    "checkpoint.every=20",
    "tracking.log_every=5",
    "launch.cpus_per_worker=1",
)
_SHORTEST = 45.0
"""Seconds worth a start, which reads and decodes all images."""


def run_teachers(session: Session) -> None:
    for arch, target in {"wrn-10-1": 0.0}.items() if session.toy else TEACHERS.items():
        if not session.done("teachers", arch) and _complete(session, "teachers", arch, ("train", "test")):
            _train(session, "teachers", arch, _teacher_config(session, arch))
            directory = RunDirectory(Path(session.work) / "runs" / "teachers" / arch)
            if directory.finished():
                session.answer("teachers", arch, partial(_teacher, session, arch, target, directory), needs=-inf)


def run_pairs(session: Session) -> None:
    for pair in (_TOY_PAIR,) if session.toy else PAIRS:
        name = " -> ".join(pair)
        if session.done("pairs", name) or not _complete(session, "pairs", name, ("test",)):
            continue
        if not (session.teachers / f"{pair[0]}.safetensors").exists():
            _note(session, "pairs", name, {"status": "waiting", "message": f"no {pair[0]}.safetensors yet"})
            continue
        config = _pair_config(session, pair)
        _train(session, "pairs", name, config)
        directory = Job.plan("train", config).directory
        if directory.finished():
            session.answer("pairs", name, partial(_student, directory), needs=-inf)


def _student(directory: RunDirectory) -> Entry:
    return _told(directory) | {"history": read_history(directory.history)}


def _train(session: Session, stage: str, name: str, config: Config) -> None:
    """Runs or continues a job, unless it is finished; raises OutOfTime when the deadline stops it."""
    job = Job.plan("pretrain" if stage == "teachers" else "train", config)
    directory = job.directory
    if directory.finished():
        return
    if session.left() < (0.2 if session.toy else _SHORTEST):
        raise OutOfTime
    directory.begin(job.goal.task.command, config, job.goal.inputs.get("teacher"))
    directory.clear_requests()
    try:
        with _asked_to_stop(directory, session.left()):
            local.launch(job)
    except Interrupted as stopped:
        done = {"iteration": stopped.iteration, "iterations": stopped.iterations}
        rows = read_history(directory.history)
        _note(session, stage, name, {"status": "interrupted", **done, "history": rows})
        raise OutOfTime from None
    except Exception as error:
        _note(session, stage, name, {"status": "failed", "message": f"{type(error).__name__}: {error}"})
    finally:
        directory.clear_requests()


@contextmanager
def _asked_to_stop(directory: RunDirectory, seconds: float) -> Iterator[None]:
    """After `seconds` the run is asked to save and stop, through the file that a launcher writes."""
    timer = threading.Timer(max(0.0, seconds), directory.stop.touch)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _note(session: Session, stage: str, name: str, entry: Entry) -> None:
    session.stages.setdefault(stage, {})[name] = entry
    session.save()
    shown = entry.get("message") or f"{entry.get('iteration')} of {entry.get('iterations')} iterations"
    print(f"{stage:12} {name:44} {entry['status']:12} {shown}", flush=True)


def _complete(session: Session, stage: str, name: str, splits: tuple[str, ...]) -> bool:
    """Whether all images are there: shards may still be on their way."""
    for split in splits:
        found = sum(map(_images_in, session.data.glob(f"{split}-*.parquet")))
        expected = 1 if session.toy else SHARDS[split]
        if found < expected:
            problem = f"{found} of {expected} {split} images are in the data folder"
            _note(session, stage, name, {"status": "waiting", "message": problem})
            return False
    return True


def _images_in(shard: Path) -> int:
    """None, where only a part of the file has been copied yet."""
    try:
        return int(pq.read_metadata(shard).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0


def _common(session: Session) -> list[str]:
    here = [f"runs_dir={session.work / 'runs'}", "data.name=parquet", f"data.root={session.data}", "device=auto"]
    # Few checkpoints: the deadline leaves one whenever it comes. No pictures, no MLflow.
    settings = ["tracking.uri=none", "tracking.images=0", "checkpoint.every=10000", "checkpoint.keep=1"]
    return [*here, *settings, *(_TOY if session.toy else ()), *session.settings]


def _teacher_config(session: Session, arch: str) -> Config:
    recipe = () if session.toy else RECIPES[session.recipe]
    return configured(*_common(session), *recipe, f"name={arch}", "evaluation.every=5000", pair=(arch, arch))


def _pair_config(session: Session, pair: tuple[str, str]) -> Config:
    weights = session.teachers / f"{pair[0]}.safetensors"
    name = "_".join(pair)
    overrides = [*_common(session), f"teacher.checkpoint={weights}", f"experiment=cifar10_{name}", "name=seed-0"]
    return configured(*overrides, pair=pair)


def _told(directory: RunDirectory) -> Result:
    result = directory.finished()
    assert result is not None
    return result | {"run_status": result["status"], "status": "done"}


def _teacher(session: Session, arch: str, target: float, directory: RunDirectory) -> Entry:
    """Rounds a teacher, measures it again as it will be read, and says how it was made."""
    config, result = _teacher_config(session, arch), _told(directory)
    rounded = session.work / "teachers" / f"{arch}.safetensors"
    dataset = open_dataset(config)
    exact = read_network(config, "teacher", dataset.image_shape, dataset.num_classes, directory.weights("teacher"), "")
    save_rounded(exact, directory.weights("teacher"), rounded)
    network = read_network(config, "teacher", dataset.image_shape, dataset.num_classes, rounded, "teacher")
    evaluate = Evaluator(dataset, World(session.device))
    accuracy = evaluate(network.to(session.device)).accuracy
    return {
        "arch": arch,
        "recipe": config.supervised.model_dump(mode="json"),
        "iterations": result["iterations"],
        "seconds": result["seconds"],
        "seed": result["seed"],
        "accuracy_float32": result["teacher"]["accuracy"],
        "accuracy": accuracy,
        "target": target,
        "reached": accuracy >= target,
        "file": rounded.name,
        "bytes": rounded.stat().st_size,
        "sha256": sha256_of(rounded),
        "sha256_float32": hashlib.sha256(directory.weights("teacher").read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "device": result["device"],
        "gpu": torch.cuda.get_device_name() if session.is_cuda else None,
        "history": read_history(directory.history),
    }


def save_rounded(network: torch.nn.Module, source: Path, path: Path) -> None:
    """Convolutions and linear layers in half precision; batch norm, which may hold large variances, as it is."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()
    save_weights(path, network, read_about(source))


def toy_data(folder: Path) -> None:
    """Random images in the layout of the real ones."""
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        images = []
        for _ in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(buffer, format="PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        labels = pa.array([number % CLASSES for number in range(count)], pa.int64())
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"img": pa.array(images), "label": labels}), folder / f"{split}-00000-of-00001.parquet")
