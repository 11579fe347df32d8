"""What a command is going to do: checked, and shown, before anything is trained."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from zskt_dist.config import Config
from zskt_dist.data import ImageDataset, balanced_subset
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.engine.building import check_installed
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.extras import lacking
from zskt_dist.launch.devices import local_workers, usable_cores, worker_device
from zskt_dist.launch.environment import ray_cluster_given
from zskt_dist.launch.free_memory import describe_memory, describe_size, free_memory, lack_of_memory
from zskt_dist.models import ImageShape, count_parameters
from zskt_dist.networks.attention import Attention, pair_layers, tap_pair
from zskt_dist.networks.building import new_generator, outlines, read_fitting
from zskt_dist.networks.inputs import Inputs, declared_by_file, open_inputs
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.storage import check, is_file
from zskt_dist.speed import pick
from zskt_dist.tasks.memory import estimate_memory
from zskt_dist.training.job import Job

Lines = list[tuple[str, str]]


@dataclass
class Plan:
    """A job, and what `problems` finds out about it on the way.

    Attributes:
        quiet: Not to warn which part of a file of weights is taken.
        inputs: None where they contradict each other, or are not there.
        networks: Outlines by role; empty where one cannot be built.
        attention: Layers that are compared; None: none, or they do not pair.
    """

    job: Job
    quiet: bool = False
    inputs: Inputs | None = None
    networks: dict[str, nn.Module] = field(default_factory=dict)
    attention: Attention | None = None

    def problems(self) -> Iterator[UserError]:
        """Everything that would stop the job, cheapest check first: nothing is trained."""
        job, config = self.job, self.job.config
        try:
            check(config.runs_dir)
            _check_weights("teacher.checkpoint", config.teacher.checkpoint, "null trains a teacher first")
            if job.command == "finetune":
                _check_weights("finetune.student", config.finetune.student, "null trains the zero-shot student first")
        except UserError as error:
            yield error
        try:
            check_installed(config)
            _check_devices(config)
            if not (config.launch.kind == "ray" and ray_cluster_given()):  # whose devices are not known here
                pick(config, worker_device(config, 0), lambda: 0.0, config.launch.most_workers)
        except UserError as error:
            yield error
        if job.command == "synthesize":
            return  # of images, only their shape: the student's file says it
        try:
            self.inputs = inputs = open_inputs(job)
            if job.learns_from_pseudo_data:
                _check_pseudo_data(config, inputs)
            self._check_networks(inputs)
            if inputs.dataset is not None:
                _check_images(job, inputs.dataset)
        except UserError as error:
            yield error

    def _check_networks(self, inputs: Inputs) -> None:
        """Architectures exist, take these images and return logits, and their attention maps pair; weights fit."""
        job, config = self.job, self.job.config
        self.networks = outlines(config, _roles(job), inputs.image_shape, inputs.num_classes)
        _check_cached_teacher(job, inputs)
        _check_fit(job, self.networks, inputs.num_classes, self.quiet)
        # Finetuning compares no attention maps, but the zero-shot run that it makes first does; pretraining never.
        compares = job.command in ("train", "distill") or (job.command == "finetune" and not config.finetune.student)
        if compares and not job.learns_from_pseudo_data:
            weight = "distill" if job.command == "distill" else "loss"
            pair = self.networks["teacher"], self.networks["student"]
            attention = pair_layers(config, *pair, inputs.image_shape, weight=weight)
            tap_pair(config, *pair, attention, weight=weight)
            self.attention = attention


def problems(job: Job) -> Iterator[UserError]:
    """As `Plan.problems`, for who runs the job then: its workers warn."""
    return Plan(job, quiet=True).problems()


def describe(plan: Plan) -> Lines:
    """The plan in words, one line per topic."""
    job, inputs = plan.job, plan.inputs
    config, launch = job.config, job.config.launch
    lines = [("run directory", job.directory)]
    if inputs is None:
        none = config.data.name == "none"
        lines.append(("data", _use_of_images(job) if none else f"{config.data.name} at {config.data.root}"))
    else:
        shape = "x".join(str(size) for size in inputs.image_shape)
        name = inputs.dataset.name if inputs.dataset else "none"
        lines.append(("data", f"{name}, {shape}, {inputs.num_classes} classes, {_use_of_images(job)}"))
        lines.append(("normalised", _normalisation(inputs)))
        if plan.networks:
            lines += _networks(job, inputs.image_shape, plan.networks)
    lines += _training(job)
    most = launch.most_workers
    workers = f"{most} worker{'s' * (most > 1)}"
    if launch.fewest_workers < most:
        workers = f"{launch.fewest_workers} to {workers}"
    engine = config.engine.kind + (f" ZeRO-{config.engine.zero_stage}" if config.engine.kind == "deepspeed" else "")
    return [*lines, ("launch", f"{launch.kind}, {workers}, {engine}")]


def _use_of_images(job: Job) -> str:
    if job.config.data.name == "none":
        return "no data: accuracy cannot be measured; label-free scores only"
    if job.command == "train":
        return "for evaluation, and to train the teacher where it has to be" if job.needs_training_images else "to test"
    count = job.config.data.images_per_class
    return "all training images" if count is None or job.role == "teacher" else f"{count} training images per class"


def _normalisation(inputs: Inputs) -> str:
    if inputs.statistics is None:
        return "as measured on the train images"
    mean, std = (", ".join(f"{number:g}" for number in numbers) for numbers in inputs.statistics)
    return f"(pixel / 255 - mean) / std with mean {mean} and std {std}, from {inputs.normalised_by}"


def _networks(job: Job, image_shape: ImageShape, networks: dict[str, nn.Module]) -> Lines:
    config, lines = job.config, []
    sizes = {role: count_parameters(network) for role, network in networks.items()}
    if job.teacher_weights or job.role == "teacher":
        lines.append(("teacher", f"{config.teacher.arch}, {sizes['teacher']:,} parameters, {_teacher_source(job)}"))
    if job.role == "student":
        lines.append(("student", f"{config.student.arch}, {sizes['student']:,} parameters"))
    if job.learns_from_pseudo_data:
        lines.append(("pseudo-data", _pseudo_data(config)))
    elif job.command == "train":
        with torch.device("meta"):
            size = count_parameters(new_generator(config, image_shape))
        lines.append(("generator", f"{size:,} parameters, z of {config.generator.z_dim}"))
    return lines


def _training(job: Job) -> Lines:
    config = job.config
    transfer, loss, adam, recipe, few = (
        config.transfer,
        config.loss,
        config.optimizer,
        config.supervised,
        config.finetune,
    )
    gap = f"{loss.divergence} at T = {loss.temperature:g} ({loss.reduction})"
    if job.learns_from_pseudo_data:
        steps = f"{config.iterations:,} student steps of {config.batch_size}"
        rate = f"Adam {adam.student_lr:g}, cosine to 0, clipped at {adam.clip_norm:g}"
        return [("loss", f"{gap}, no attention term"), ("optimizer", f"{rate}, {steps}")]
    if job.command == "train":
        return [
            (
                "transfer",
                f"N = {config.iterations:,} iterations of n_G = {transfer.generator_steps}, "
                f"n_S = {transfer.student_steps}, batch {config.batch_size}, images {transfer.pseudo_batch}",
            ),
            ("loss", f"{gap}, beta = {loss.beta:g} ({loss.attention})"),
            (
                "optimizer",
                f"Adam, cosine to 0, generator {adam.generator_lr:g}, "
                f"student {adam.student_lr:g}, clipped at {adam.clip_norm:g}",
            ),
        ]
    if job.command == "finetune":
        source = few.student or f"the zero-shot run {job.student_directory}"
        steps = f"Adam {few.learning_rate:g}, {few.iterations:,} steps of {few.batch_size}"
        return [("start", f"the student of {source}"), ("optimizer", f"{steps}, batch norm in {few.batch_norm} mode")]
    steps = f"{config.supervised_iterations:,} steps of {recipe.batch_size}"
    lines = [("optimizer", f"SGD {recipe.learning_rate:g}, momentum {recipe.momentum:g}, {steps}")]
    if job.command == "distill":
        kd = config.distill
        text = f"KD + AT: T = {kd.temperature:g}, alpha = {kd.alpha:g}, beta = {kd.beta:g} ({loss.attention})"
        lines.append(("loss", text))
    return lines


def _pseudo_data(config: Config) -> str:
    try:
        data = PseudoData.open(str(config.pseudo_data))
    except UserError:
        return str(config.pseudo_data)
    return f"{data.images:,} images, {describe_size(data.nbytes)} in every worker, of {data.folder}"


def job_submit_line(command: str, arguments: list[str]) -> str:
    """The same command as a Ray job; the working directory travels to the cluster."""
    arguments = [*(each for each in arguments if not each.startswith("launch.kind=")), "launch.kind=ray"]
    return f"ray job submit --working-dir . -- python -m zskt_dist.{command} {shlex.join(arguments)}"


def print_plan(command: str, config: Config, arguments: list[str], console: Console) -> None:
    """`--dry-run`: the plan, and the matching Ray job.

    Raises:
        UserError: the command would be refused.
    """
    plan = Plan(Job.plan(command, config))
    job = plan.job
    table = Table(title=f"Plan of {command}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    found = list(plan.problems())
    attention = plan.attention if command in ("train", "distill") and not found else None
    estimated = command == "train" and not job.learns_from_pseudo_data and not found
    needs, lack = _memory(plan) if estimated else ("", None)
    compares = [("attention", f"compares {attention}")] if attention else []
    for topic, text in [*describe(plan), *compares, *([("memory", needs)] if needs else [])]:
        table.add_row(topic, text)
    console.print(table)
    warnings = {
        "data": plan.inputs and plan.inputs.warning,
        "attention": attention and attention.warning,
        "memory": lack,
    }
    for topic, warning in warnings.items():
        if warning:
            _print_warning(f"{topic}: {warning}", console)
    refuse(found, console)
    console.print("ready: configuration, files and resources are in order")
    line = f"as a Ray job: {job_submit_line(command, arguments)}"
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def refuse(found: Sequence[UserError], console: Console) -> None:
    """Raises the first problem, as the command itself would, and shows the others before; without any, nothing."""
    for problem in found[1:]:
        _print_warning(f"also: {problem}", console)
    if found:
        raise found[0]


def _print_warning(line: str, console: Console) -> None:
    console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)


def _memory(plan: Plan) -> tuple[str, str | None]:
    """What the zero-shot transfer takes, and what to do where it is more than there is; of a plan without problems."""
    assert plan.inputs is not None
    config, shape, classes = plan.job.config, plan.inputs.image_shape, plan.inputs.num_classes
    try:
        memory = estimate_memory(config, shape, classes)
    except UserError as error:
        return str(error), None
    return describe_memory(memory, config), lack_of_memory(config, shape, classes, memory)


def _check_weights(key: str, location: str | None, otherwise: str) -> None:
    if location is not None and not Path(location).is_dir() and not is_file(location, key):
        raise ConfigError(key, location, f"no such file; {otherwise}")


def _check_devices(config: Config) -> None:
    launch = config.launch
    if launch.kind == "ray" and (problem := lacking("ray")):
        raise ConfigError("launch.kind", "ray", f"{problem}; or use launch.kind=local")
    if launch.kind == "local":
        for local_rank in range(local_workers(config)):
            worker_device(config, local_rank)
    elif not ray_cluster_given():  # else: the cluster is asked once Ray is there
        cores, each = usable_cores(), launch.cpus_per_worker or 1
        if launch.fewest_workers * each > cores:
            raise ConfigError(
                "launch.workers",
                launch.workers,
                f"needs {launch.fewest_workers * each} CPUs, this machine has {cores}; "
                f"use launch.workers={max(1, cores // each)}, or set RAY_ADDRESS to a cluster that has them",
            )


def _check_images(job: Job, dataset: ImageDataset) -> None:
    """The images that the job reads are there, those of each class too."""
    config = job.config
    if config.data.name != "digits":
        dataset.read("test")  # downloads, where that is allowed, before several workers would
    if job.sees_images_per_class:
        balanced_subset(dataset.train_labels, dataset.num_classes, job.sees_images_per_class, config.seed)
    if config.data.name == "svhn" and config.data.download and job.needs_training_images:
        dataset.read("train")  # SVHN is downloaded split by split


def _roles(job: Job) -> list[str]:
    """Of the networks that the job needs."""
    if job.learns_from_pseudo_data:
        return ["student", *(["teacher"] if job.teacher_weights else [])]
    return ["teacher"] if job.role == "teacher" else ["teacher", "student"]


def _check_fit(job: Job, networks: dict[str, nn.Module], num_classes: int, quiet: bool) -> None:
    """Weights that are there are sound and fit."""
    config = job.config
    given = {"teacher.checkpoint": config.teacher.checkpoint} if job.command != "pretrain" else {}
    if job.command == "finetune":
        given["finetune.student"] = config.finetune.student
    for key, location in given.items():
        if location is not None and (Path(location).is_dir() or is_file(location, key)):
            role = "student" if key == "finetune.student" else "teacher"
            read_fitting(config, role, networks[role], num_classes, location, key, quiet=quiet)


def _check_cached_teacher(job: Job, inputs: Inputs) -> None:
    """A teacher that was trained earlier knows these images and classes; those of a folder may have changed since."""
    cached, config = RunDirectory(job.teacher_directory), job.config
    used = job.command != "evaluate" and job.teacher_weights and config.teacher.checkpoint is None
    if not used or not cached.finished():
        return
    there = declared_by_file("teacher weights", str(cached.weights("teacher")))
    now = inputs.image_shape, inputs.num_classes
    before = there.image_shape or now[0], there.num_classes or now[1]
    if before != now:
        kinds = [f"{'x'.join(map(str, shape))} in {classes} classes" for shape, classes in (now, before)]
        problem = f"holds images of {kinds[0]}; the teacher in {cached.location} was trained on those of {kinds[1]}"
        raise ConfigError("data.root", config.data.root, f"{problem}; remove that folder, and it is trained anew")


def _check_pseudo_data(config: Config, inputs: Inputs) -> None:
    """It is there, fits, and has room."""
    data = PseudoData.open(str(config.pseudo_data))
    data.check(inputs.image_shape, inputs.num_classes)
    free = free_memory(config)
    if free is not None and data.nbytes > free:
        problem = f"takes {describe_size(data.nbytes)} of every worker's memory, and {describe_size(free)} are free"
        raise ConfigError("pseudo_data", config.pseudo_data, f"{problem}; make fewer images, or use fewer workers")


def _teacher_source(job: Job) -> str:
    config = job.config
    if config.teacher.checkpoint is not None:
        return f"from {config.teacher.checkpoint}"
    steps = config.supervised_iterations
    return f"trained for {steps:,} iterations, cached in {job.teacher_directory}"
