"""What a command is going to do: checked, and shown, before anything is trained."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from zskt_dist.config import Config, dump_yaml
from zskt_dist.data import ImageDataset, balanced_subset
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.launch.devices import local_workers, usable_cores, worker_device
from zskt_dist.launch.environment import ray_cluster_given
from zskt_dist.launch.room import describe_memory, describe_size, free_memory, lack_of_memory
from zskt_dist.models import count_parameters
from zskt_dist.runtime.attention import Attention, pair_layers, tap_pair
from zskt_dist.runtime.engines import check_installed
from zskt_dist.runtime.inputs import Inputs, open_inputs
from zskt_dist.runtime.job import Job
from zskt_dist.runtime.memory import estimate_memory
from zskt_dist.runtime.networks import new_generator, outlines, read_fitting
from zskt_dist.runtime.storage import check, is_file
from zskt_dist.speed import pick

Lines = list[tuple[str, str]]


def problems(job: Job) -> Iterator[UserError]:
    """Everything that would stop the job, cheapest check first: nothing is trained."""
    config = job.config
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
        inputs = open_inputs(job)
        if job.learns_from_pseudo_data:
            _check_pseudo_data(job, inputs)
        else:
            _check_networks(config, inputs, job.command)
        if inputs.dataset is not None:
            _check_images(job, inputs.dataset)
    except UserError as error:
        yield error


def describe(job: Job) -> Lines:
    """The plan in words, one line per topic."""
    config, launch = job.config, job.config.launch
    lines = [("run directory", job.directory)]
    try:
        inputs = open_inputs(job)
    except UserError:
        none = config.data.name == "none"
        lines.append(("data", _use_of_images(job) if none else f"{config.data.name} at {config.data.root}"))
    else:
        shape = "x".join(str(size) for size in inputs.image_shape)
        name = inputs.dataset.name if inputs.dataset else "none"
        lines.append(("data", f"{name}, {shape}, {inputs.num_classes} classes, {_use_of_images(job)}"))
        lines.append(("normalised", _normalisation(inputs)))
        with suppress(UserError):  # networks that cannot be built are among the problems
            lines += _networks(job, inputs)
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


def _networks(job: Job, inputs: Inputs) -> Lines:
    config, sizes = job.config, _parameter_counts(job.config, inputs)
    lines = []
    if job.teacher_weights or job.role == "teacher":
        lines.append(("teacher", f"{config.teacher.arch}, {sizes['teacher']:,} parameters, {_teacher_source(job)}"))
    if job.role == "student":
        lines.append(("student", f"{config.student.arch}, {sizes['student']:,} parameters"))
    if job.learns_from_pseudo_data:
        lines.append(("pseudo-data", _pseudo_data(config)))
    elif job.command == "train":
        lines.append(("generator", f"{sizes['generator']:,} parameters, z of {config.generator.z_dim}"))
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
    if not any(argument.startswith("launch.kind=") for argument in arguments):
        arguments = [*arguments, "launch.kind=ray"]
    return f"ray job submit --working-dir . -- python -m zskt_dist.{command} {shlex.join(arguments)}"


def print_plan(command: str, config: Config, arguments: list[str], console: Console) -> None:
    """`--dry-run`: the whole configuration, the plan, what is missing, and the matching Ray job."""
    job = Job.plan(command, config)
    print(dump_yaml(config))
    table = Table(title=f"Plan of {command}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    found = list(problems(job))
    compared = command in ("train", "distill") and not job.learns_from_pseudo_data
    attention = _compared_layers(job) if compared and not found else None
    needs, lack = ("", None) if found or command != "train" or job.learns_from_pseudo_data else _memory(job)
    compares = [("attention", f"compares {attention}")] if attention else []
    for topic, text in [*describe(job), *compares, *([("memory", needs)] if needs else [])]:
        table.add_row(topic, text)
    console.print(table)
    if attention and attention.warning:
        console.print(f"attention: {attention.warning}", style="yellow", soft_wrap=True, highlight=False)
    if lack:
        console.print(f"memory: {lack}", style="yellow", soft_wrap=True, highlight=False)
    for problem in found:
        console.print(f"missing: {problem}", style="yellow", soft_wrap=True, highlight=False)
    if not found:
        console.print("ready: configuration, files and resources are in order")
    console.print(f"as a Ray job: {job_submit_line(command, arguments)}", soft_wrap=True, highlight=False)


def _compared_layers(job: Job) -> Attention | None:
    return _check_networks(job.config, open_inputs(job), job.command)


def _memory(job: Job) -> tuple[str, str | None]:
    """What the zero-shot transfer takes, and what to do where it is more than there is."""
    shape, classes, *_ = open_inputs(job)
    try:
        memory = estimate_memory(job.config, shape, classes)
    except UserError as error:
        return str(error), None
    return describe_memory(memory, job.config), lack_of_memory(job.config, shape, classes, memory)


def _check_weights(key: str, location: str | None, otherwise: str) -> None:
    if location is not None and not Path(location).is_dir() and not is_file(location, key):
        raise ConfigError(key, location, f"no such file; {otherwise}")


def _check_devices(config: Config) -> None:
    launch = config.launch
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


def _check_networks(config: Config, inputs: Inputs, command: str) -> Attention | None:
    """Architectures exist, take these images and return logits, and their attention maps pair; weights fit.

    Returns:
        The layers that are compared; None: the command compares none.
    """
    with_student = command != "pretrain" or config.supervised.network == "student"
    roles = ["teacher", "student"] if with_student else ["teacher"]
    shape, classes, *_ = inputs
    networks = outlines(config, roles, shape, classes)
    _check_fit(config, networks, classes, command)
    # Finetuning compares no attention maps, but the zero-shot run that it makes first does; pretraining never.
    if command in ("train", "distill") or (command == "finetune" and config.finetune.student is None):
        weight = "distill" if command == "distill" else "loss"
        teacher, student = networks["teacher"], networks["student"]
        attention = pair_layers(config, teacher, student, shape, weight=weight)
        tap_pair(config, teacher, student, attention, weight=weight)
        return attention
    return None


def _check_fit(config: Config, networks: dict[str, nn.Module], num_classes: int, command: str) -> None:
    """Weights that are there are sound and fit."""
    given = {"teacher.checkpoint": config.teacher.checkpoint} if command != "pretrain" else {}
    if command == "finetune":
        given["finetune.student"] = config.finetune.student
    for key, location in given.items():
        if location is not None and (Path(location).is_dir() or is_file(location, key)):
            role = "student" if key == "finetune.student" else "teacher"
            read_fitting(config, role, networks[role], num_classes, location, key)


def _check_pseudo_data(job: Job, inputs: Inputs) -> None:
    """It is there, fits, and has room; a teacher is there to be compared with, or there is none."""
    config = job.config
    data = PseudoData.open(str(config.pseudo_data))
    data.check(inputs.image_shape, inputs.num_classes)
    free = free_memory(config)
    if free is not None and data.nbytes > free:
        problem = f"takes {describe_size(data.nbytes)} of every worker's memory, and {describe_size(free)} are free"
        raise ConfigError("pseudo_data", config.pseudo_data, f"{problem}; make fewer images, or use fewer workers")
    roles = ["student", *(["teacher"] if job.teacher_weights else [])]
    networks = outlines(config, roles, inputs.image_shape, inputs.num_classes)
    _check_fit(config, networks, inputs.num_classes, job.command)


def _parameter_counts(config: Config, inputs: Inputs) -> dict[str, int]:
    shape, classes, *_ = inputs
    networks = outlines(config, ["teacher", "student"], shape, classes)
    with torch.device("meta"):
        networks["generator"] = new_generator(config, shape)
    return {role: count_parameters(network) for role, network in networks.items()}


def _teacher_source(job: Job) -> str:
    config = job.config
    if config.teacher.checkpoint is not None:
        return f"from {config.teacher.checkpoint}"
    steps = config.supervised_iterations
    return f"trained for {steps:,} iterations, cached in {job.teacher_directory}"
