"""Checks and shows what a command is going to do, before anything is trained; keeps the files it reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from zskt_dist.config import Config
from zskt_dist.config.inputs import is_brought
from zskt_dist.config.keys import is_under
from zskt_dist.data import ImageDataset, balanced_subset
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.engine.building import check_installed
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.extras import lacking
from zskt_dist.files import describe_size
from zskt_dist.launch.devices import local_workers, usable_cores, worker_device
from zskt_dist.launch.environment import ray_cluster_given
from zskt_dist.launch.free_memory import describe_memory, free_memory, lack_of_memory
from zskt_dist.launch.job_line import job_submit_line
from zskt_dist.launch.mlflow_run import foreseen
from zskt_dist.models import Examination, count_parameters, is_own
from zskt_dist.networks.attention import Attention, pair_layers, tap_pair
from zskt_dist.networks.building import (
    check_gradients,
    examination_of,
    examine_as,
    outlines,
    suited,
    unexamined_network,
)
from zskt_dist.networks.inputs import Inputs, open_inputs
from zskt_dist.networks.state_dicts import StateDict
from zskt_dist.networks.weights import WeightsFile, load_into
from zskt_dist.runs.directory import Digest, find_run
from zskt_dist.runs.locations import check, is_file, is_uri, join
from zskt_dist.speed import choose_fast_paths
from zskt_dist.tasks.base import Lines, check_images, declarations
from zskt_dist.tasks.gap import check_gap
from zskt_dist.tasks.memory import estimate_memory
from zskt_dist.tasks.stages import image_digests, user_files
from zskt_dist.training.job import Job


@dataclass
class Preflight:
    """A job and the facts that its check has found out.

    Attributes:
        quiet: True if the workers, not this check, warn which part of a file of weights is taken.
        files: Files of weights that were read, by location.
        inputs: What networks read and answer; None where that is contradictory or missing.
        networks: Outlines by role; empty where one cannot be built.
        examined: What was found about the networks that are not ours, by role.
        attention: Layers that are compared; None where the task compares none, or they do not pair.
    """

    job: Job
    quiet: bool = False
    files: dict[str, WeightsFile] = field(default_factory=dict)
    inputs: Inputs | None = None
    networks: dict[str, nn.Module] = field(default_factory=dict)
    examined: dict[str, Examination] = field(default_factory=dict)
    attention: Attention | None = None

    @property
    def digests(self) -> dict[str, Digest]:
        """The user's files that lie on this machine, by key."""
        given = {key: at for key, at in user_files(self.job.goal).items() if at in self.files and not is_uri(at)}
        weights = {key: Digest(at, self.files[at].sha256) for key, at in given.items()}
        return weights | image_digests(self.job.goal)

    def problems(self) -> Iterator[UserError]:
        """Everything that would stop the job, cheapest check first: nothing is trained."""
        goal, config = self.job.goal, self.job.config
        try:
            check(config.runs_dir)
            self._read_files()
        except UserError as error:
            yield error
        try:
            check_installed(config)
            _check_devices(config)
            if not (config.launch.kind == "ray" and ray_cluster_given()):  # its devices are not known here
                choose_fast_paths(config, worker_device(config, 0), lambda: 0.0, config.launch.most_workers)
        except UserError as error:
            yield error
        if not goal.task.opens_images:
            return
        try:
            check_images(self.job.stages)
            declared = declarations(self.job.stages, self.files)
            self.inputs = open_inputs(config, declared, needs_train=self.job.needs_training_images)
            if is_under("loss.divergence", self.job.reads):
                check_gap(config, self.inputs.num_classes)
            if "pseudo_data" in self.job.reads:
                _check_pseudo_data(config, self.inputs)
            self._check_networks(self.inputs)
            if self.inputs.dataset is not None:
                _check_dataset(self.job, self.inputs.dataset)
        except UserError as error:
            yield error

    def _read_files(self) -> None:
        """Reads every file of weights that the user gives; raises ConfigError where one is missing."""
        made = self.job.config.data.name != "none"  # from images, of which there are none
        advice = {need.key: need.otherwise for need in self.job.goal.task.needs if made}
        files = {key: at for key, at in user_files(self.job.goal).items() if not is_brought(at)}
        for key, location in files.items():
            if not is_file(location, key) and not Path(location).is_dir():
                raise ConfigError(key, location, f"no such file; {advice.get(key, 'say where it is')}")
            self.files[location] = WeightsFile.open(location, key)

    def _check_networks(self, inputs: Inputs) -> None:
        """Checks that networks can be built, take these images and return logits; that weights fit and maps pair."""
        goal, config = self.job.goal, self.job.config
        roles = {*goal.inputs, *([goal.task.role] if goal.task.trains else [])}
        shape, classes = inputs.image_shape, inputs.num_classes
        files = {role: self.files[location] for role, location in goal.inputs.items() if location in self.files}
        weights = {}
        for role, file in files.items():
            config, weights[role] = suited(config, role, shape, file, quiet=self.quiet)
        trained = {stage.task.role for stage in self.job.stages if stage.task.trains}
        self.networks = outlines(config, sorted(roles, reverse=True), shape, classes, trained=trained)
        self._check_cached_teacher(inputs)
        for role, file in files.items():
            load_into(self.networks[role], weights[role], file.key, file.location, classes, quiet=self.quiet)
        self._examine(config, weights, inputs)
        # Finetuning compares no attention maps, but the zero-shot run that it makes first does.
        weighed = [stage.task.compares for stage in self.job.stages if stage.task.compares]
        if weighed:
            pair = self.networks["teacher"], self.networks["student"]
            self.attention = pair_layers(config, *pair, shape, weight=weighed[-1])
            tap_pair(config, *pair, self.attention, weight=weighed[-1])

    def _examine(self, config: Config, weights: Mapping[str, StateDict], inputs: Inputs) -> None:
        """Asks the networks that are not ours about a few images, with the weights that they begin with."""
        task, shape, classes = self.job.goal.task, inputs.image_shape, inputs.num_classes
        for role in self.networks:
            too_large = role == "teacher" and config.engine.teacher == "sharded"  # for this process alone
            if is_own(getattr(config, role).arch) or too_large:
                continue
            network = unexamined_network(config, role, shape, classes)
            if role in weights:
                load_into(network, weights[role], role, role, classes, quiet=True)
            examine_as(config, role, network, shape, inputs.statistics)
            if task.makes_images:
                check_gradients(config, **{role: network})
            if found := examination_of(network):
                self.examined[role] = found

    def _check_cached_teacher(self, inputs: Inputs) -> None:
        """Checks that a teacher trained earlier fits these images and classes; a folder's images may have changed."""
        for stage in self.job.stages[:-1]:
            if stage.task.role != "teacher" or not (cached := find_run(stage.run, "runs_dir", own=True)).finished():
                continue
            try:
                file = WeightsFile.open(cached.weights("teacher"), "teacher weights")
            except ConfigError:
                continue  # a worker says what is wrong with it, and makes it again
            self.files[join(stage.run, "teacher.safetensors")] = file
            about: dict[str, Any] = file.about
            there = about.get("image_shape"), about.get("num_classes")
            now = inputs.image_shape, inputs.num_classes
            before = tuple(there[0] or now[0]), there[1] or now[1]
            if before != now:
                kinds = [f"{'x'.join(map(str, shape))} in {classes} classes" for shape, classes in (now, before)]
                problem = f"holds images of {kinds[0]}; the teacher in {cached.location} was trained on those of"
                root = stage.config.data.root
                raise ConfigError(
                    "data.root", root, f"{problem} {kinds[1]}; remove that folder to train the teacher anew"
                )


def preflight(job: Job) -> Preflight:
    """Checks a job and reads its files once; raises UserError for the first problem that would stop it."""
    checked = Preflight(job, quiet=True)
    for problem in checked.problems():
        raise problem
    return checked


def describe(plan: Preflight) -> Lines:
    """The plan in words, one line per topic."""
    goal, inputs = plan.job.goal, plan.inputs
    config, launch = goal.config, goal.config.launch
    lines = [("run directory", goal.run)]
    if inputs is None:
        none = config.data.name == "none"
        lines.append(("data", _use_of_images(plan.job) if none else f"{config.data.name} at {config.data.root}"))
    else:
        shape = "x".join(str(size) for size in inputs.image_shape)
        name = inputs.dataset.name if inputs.dataset else "none"
        lines.append(("data", f"{name}, {shape}, {inputs.num_classes} classes, {_use_of_images(plan.job)}"))
        if inputs.dataset and inputs.dataset.files:
            lines += [("images", inputs.dataset.files), *inputs.dataset.notes]
        lines.append(("normalised", _normalisation(inputs)))
        lines += _networks(plan.job, plan.networks)
        lines += [("answers", f"{role}: {found}") for role, found in plan.examined.items()]
    shown = inputs.image_shape if inputs and plan.networks else None
    lines += import_module(goal.task.module).describe(goal, shown)
    most = launch.most_workers
    workers = f"{most} worker{'s' * (most > 1)}"
    if launch.fewest_workers < most:
        workers = f"{launch.fewest_workers} to {workers}"
    engine = config.engine.kind + (f" ZeRO-{config.engine.zero_stage}" if config.engine.kind == "deepspeed" else "")
    return [*lines, ("launch", f"{launch.kind}, {workers}, {engine}")]


def _use_of_images(job: Job) -> str:
    task, config = job.goal.task, job.config
    if config.data.name == "none":
        return "no data: accuracy cannot be measured; label-free scores only"
    if not task.real_images:
        return "for evaluation, and to train a missing teacher" if job.needs_training_images else "to test"
    count = task.images_per_class(config)
    return "all training images" if count is None else f"{count} training images per class"


def _normalisation(inputs: Inputs) -> str:
    if inputs.statistics is None:
        return "as measured on the train images"
    mean, std = (", ".join(f"{number:g}" for number in numbers) for numbers in inputs.statistics)
    return f"(pixel / 255 - mean) / std with mean {mean} and std {std}, from {inputs.normalised_by}"


def _networks(job: Job, networks: dict[str, nn.Module]) -> Lines:
    config, sizes = job.config, {role: f"{count_parameters(network):,}" for role, network in networks.items()}
    lines = []
    if "teacher" in sizes:
        lines.append(("teacher", f"{config.teacher.arch}, {sizes['teacher']} parameters, {_teacher_source(job)}"))
    if "student" in sizes:
        lines.append(("student", f"{config.student.arch}, {sizes['student']} parameters"))
    return lines


def _teacher_source(job: Job) -> str:
    made = [stage for stage in job.stages if stage.task.role == "teacher"]
    if not made:
        checkpoint = job.config.teacher.checkpoint
        return "with the weights that it comes with" if is_brought(checkpoint) else f"from {checkpoint}"
    return f"trained for {made[0].config.supervised_iterations:,} iterations, cached in {made[0].run}"


def print_plan(command: str, config: Config, arguments: list[str], console: Console) -> None:
    """Prints the plan of `--dry-run` and the same command as a Ray job.

    Raises:
        UserError: the command would stop with this error.
    """
    plan = Preflight(Job.plan(command, config))
    goal = plan.job.goal
    table = Table(title=f"Plan of {command}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    found = list(plan.problems())
    attention = plan.attention if goal.task.compares and not found else None
    needs, lack = _memory(plan) if goal.task.makes_images and not found else ("", None)
    compares = [("attention", f"compares {attention}")] if attention else []
    for topic, text in [*describe(plan), *compares, *([("memory", needs)] if needs else [])]:
        table.add_row(topic, Text(text))  # a name in brackets is no markup
    console.print(table)
    warnings = {
        "data": plan.inputs and plan.inputs.warning,
        **{role: examined.warning for role, examined in plan.examined.items()},
        "attention": attention and attention.warning,
        "memory": lack,
        "MLflow": foreseen(config),
    }
    for topic, warning in warnings.items():
        if warning:
            _print_warning(f"{topic}: {warning}", console)
    refuse(found)
    console.print("ready: configuration, files and resources are in order")
    for line in (
        f"as a Ray job: {job_submit_line(command, config, arguments)}",
        "its paths are those of this machine; on a cluster of several, name folders that all of them see, or URIs",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def refuse(found: Sequence[UserError]) -> None:
    """Raises the first problem as the command would, with notes of those of other keys; does nothing without any."""
    if not found:
        return
    by_key: dict[str, UserError] = {}
    for problem in found:
        by_key.setdefault(getattr(problem, "key", str(problem)), problem)
    first, *others = by_key.values()
    for problem in others:
        first.add_note(f"also: {problem}")
    raise first


def _print_warning(line: str, console: Console) -> None:
    console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)


def _memory(plan: Preflight) -> tuple[str, str | None]:
    """The memory that the transfer needs, and a remedy where there is less; only for a plan without problems."""
    assert plan.inputs is not None
    config, shape, classes = plan.job.config, plan.inputs.image_shape, plan.inputs.num_classes
    try:
        memory = estimate_memory(config, shape, classes)
    except UserError as error:
        return str(error), None
    return describe_memory(memory, config), lack_of_memory(config, shape, classes, memory)


def _check_devices(config: Config) -> None:
    launch = config.launch
    if launch.kind == "ray" and (problem := lacking("ray")):
        raise ConfigError("launch.kind", "ray", f"{problem}; or use launch.kind=local")
    if launch.kind == "local":
        for local_rank in range(local_workers(config)):
            worker_device(config, local_rank)
    elif not ray_cluster_given():  # else: the cluster is checked once Ray has started
        cores, each = usable_cores(), launch.cpus_per_worker or 1
        if launch.fewest_workers * each > cores:
            raise ConfigError(
                "launch.workers",
                launch.workers,
                f"needs {launch.fewest_workers * each} CPUs, this machine has {cores}; "
                f"use launch.workers={max(1, cores // each)}, or set RAY_ADDRESS to a cluster that has them",
            )


def _check_dataset(job: Job, dataset: ImageDataset) -> None:
    """Checks that the images that the job reads are there, and enough of each class."""
    config, count = job.config, job.goal.task.images_per_class(job.config)
    if config.data.name != "digits":
        dataset.read("test")  # downloads once, where that is allowed, instead of in several workers
    if count:
        balanced_subset(dataset.train_labels, dataset.num_classes, count, config.seed)
    if config.data.name == "svhn" and config.data.download and job.needs_training_images:
        dataset.read("train")  # SVHN is downloaded split by split


def _check_pseudo_data(config: Config, inputs: Inputs) -> None:
    """Checks that the pseudo-data is there, fits the run and fits into memory."""
    data = PseudoData.open(str(config.pseudo_data))
    data.check(inputs.image_shape, inputs.num_classes)
    free = free_memory(config)
    if free is not None and data.nbytes > free:
        problem = f"takes {describe_size(data.nbytes)} of every worker's memory, and {describe_size(free)} are free"
        raise ConfigError("pseudo_data", config.pseudo_data, f"{problem}; make fewer images, or use fewer workers")
