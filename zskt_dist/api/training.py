"""`transfer`: a zero-shot run on the caller's own networks, in the same loop as the commands."""

import hashlib
import json
import signal
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from zskt_dist.algorithms.statistics import StatisticsGap
from zskt_dist.api.networks import (
    Numbers,
    check_network,
    check_pair,
    count_classes,
    frozen_view,
    images_of,
    reading_logits,
    shared_classes,
    statistics_of,
    unchanged_on_failure,
)
from zskt_dist.api.results import TransferResult
from zskt_dist.api.settings import SETTINGS, Method, Settings, given_settings, method_of, settings_of
from zskt_dist.api.watching import Bar, OnProgress, Watcher, progress_bar
from zskt_dist.config import Config, flatten
from zskt_dist.config.keys import is_under
from zskt_dist.data import Standardise
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.engine.building import placed_teacher
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.evaluation.estimates import Answer
from zskt_dist.evaluation.held_out import LABEL_FREE, generator_drift
from zskt_dist.evaluation.yardstick import find_or_make
from zskt_dist.launch.devices import worker_device
from zskt_dist.models import ImageShape
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.locations import local_folder
from zskt_dist.tasks.base import Tick
from zskt_dist.tasks.gap import check_gap
from zskt_dist.tasks.inversion import WITHOUT_STATISTICS, InversionTraining, seed_images
from zskt_dist.tasks.stages import identity
from zskt_dist.tasks.transfer import TransferTraining
from zskt_dist.tracking.base import NullTracker, Row
from zskt_dist.tracking.local import History
from zskt_dist.training.loop import Cadence, Loop, blaming_the_teacher


def transfer(
    teacher: nn.Module,
    student: nn.Module,
    *,
    input_shape: tuple[int, int, int] | None = None,
    method: Method | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    generator_steps: int | None = None,
    student_steps: int | None = None,
    pseudo_batch: Literal["post_update", "pre_update", "fresh"] | None = None,
    beta: float | None = None,
    generator_lr: float | None = None,
    student_lr: float | None = None,
    seed: int | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    speed: Literal["auto", "plain"] | None = None,
    log_every: int | None = None,
    config: Settings | None = None,
    on_progress: OnProgress | None = None,
    progress: bool = True,
    checkpoint_dir: str | Path | None = None,
) -> TransferResult:
    """Trains `student` to behave like `teacher`, without data.

    It runs in this process and writes nothing, except to `checkpoint_dir`. Ctrl-C, or the interrupt button of a
    notebook, ends it after the iteration under way and returns what is there; before the first iteration it raises
    KeyboardInterrupt. In a process group (torchrun) all ranks call it together, with equal networks, and share every
    batch.

    Args:
        teacher: Images [B, C, H, W] to logits [B, classes], or to a dict, sequence or object that holds them, called
            `logits`, `output` or `out`, or known by their shape. It runs in eval mode and is not changed; its weights
            are copied only where they lie on another device.
        student: Images to logits of the same classes, with the same forms of output; initialised by the caller. All its
            parameters that take gradients are trained in place. It ends in eval mode, on the device of the run.
        input_shape: (C, H, W) of the images the teacher was trained on. The generator makes them in the teacher's
            normalised input space. None: what the teacher declares, as timm's do in `pretrained_cfg["input_size"]`.
        method: `inversion` makes images that look to the teacher like those it was trained on (docs/inversion.md); its
            settings are those of `inversion` in `config`. `belief_matching` is Algorithm 1 of the paper. None:
            `inversion` where the teacher has layers with running statistics, such as batch norm, and no argument or
            setting of Algorithm 1 alone is given; else `belief_matching`.
        mean: Mean of each channel of the teacher's images, of pixels in [0, 1], or one number for all. `inversion`
            bounds its images by it; None: what the teacher declares, as timm's do, else a guess, with a warning.
            Algorithm 1 needs none, and has a yardstick only with one.
        std: Standard deviation of each channel, or one number for all.
        iterations: N, number of pseudo-batches; student steps of `inversion` (1,000).
        batch_size: Images in each pseudo-batch (128).
        generator_steps: n_G, generator steps per iteration of Algorithm 1 (1), as are the next four.
        student_steps: n_S, student steps per iteration (10).
        pseudo_batch: Images the student learns from, `transfer.pseudo_batch` of the configuration (`post_update`).
        beta: Weight of the attention term (250). It compares the layers that both networks name in `attention_layers`,
            else the last ones with maps of equal size; `loss.taps` in `config` chooses others. 0 leaves it out.
        generator_lr: Initial learning rate of the generator's Adam (1e-3).
        student_lr: Initial learning rate of the student's Adam (2e-3).
        seed: Seed of generator and noise (0). The caller initialises the student.
        device: auto: CUDA where there is a GPU (`auto`).
        speed: auto: the fast paths that win on the device; plain: none (`auto`).
        log_every: Iterations between rows of the history, and calls of `on_progress` (50).
        config: Settings by their keys in the configuration, for example `{"loss.temperature": 2.0, "iterations": 5}`,
            or as on the command line, `["loss.temperature=2", "iterations=5"]`; also those above, but none twice.
        on_progress: Called every `log_every` iterations and after each evaluation; where it returns False or raises
            StopIteration, the run ends and returns what is there.
        progress: Show a bar, in a terminal or a notebook, where `rich` is installed.
        checkpoint_dir: Folder for checkpoints, every `checkpoint.every` iterations and at the end. The same call goes
            on from them; another teacher, setting, `input_shape` or shape of student begins anew beside them. None: no
            files.

    Returns:
        The student with its history and its label-free estimates.

    Raises:
        UserError: networks cannot be copied, or do not fit each other or `input_shape`; the loss is no longer finite.
        ConfigError: a setting is unknown, impossible, given twice, or has no meaning here (also a UserError).

    Examples:
        >>> import torch, zskt_dist
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> student = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> result = zskt_dist.transfer(
        ...     teacher, student, input_shape=(1, 8, 8), iterations=20, batch_size=16, beta=0, log_every=10,
        ...     config={"generator.channels": (8, 4)}, progress=False,
        ... )
        >>> result.student is student, result.iterations, result.stopped_early
        (True, 20, False)
        >>> [row["iteration"] for row in result.history]
        [10, 20]
        >>> sorted(result.scores)
        ['held_out_agreement', 'held_out_kl', 'label_free_score', 'noise_agreement']
    """
    given = given_settings(locals(), config)
    kept = None if checkpoint_dir is None else local_folder(str(checkpoint_dir), "checkpoint_dir")
    check_network("teacher", teacher)
    check_network("student", student)
    shape = images_of(teacher, given.pop("data.image_shape", None))
    given["method"] = method_of(teacher, given)
    mean, std = given.pop("data.mean", None), given.pop("data.std", None)
    statistics = None
    if given["method"] == "inversion" or mean is not None or std is not None:
        statistics = statistics_of(teacher, shape, mean, std)
        given |= {"data.mean": statistics[0], "data.std": statistics[1]}
    settings = settings_of(given)
    check_pair(teacher, student)
    where = worker_device(settings, torch.cuda.current_device() if torch.cuda.is_available() else 0)
    view = frozen_view("teacher", teacher, where)
    outputs = settings.teacher.output, settings.student.output
    views = {"teacher": view, "student": frozen_view("student", student)}
    shared = shared_classes(views, torch.zeros(2, *shape), dict(zip(views, outputs, strict=True)))
    classes = count_classes("teacher", view, shape, outputs[0], shared)
    if (own := count_classes("student", views["student"], shape, outputs[1], shared)) != classes:
        raise UserError(f"teacher has {classes} classes and student {own}; give the student {classes} outputs")
    if settings.method == "belief_matching":
        check_gap(settings, classes, where)
    folder = kept and kept / _identity(settings, shape, teacher, student)
    cuda = [where] if where.type == "cuda" else []
    with (
        torch.enable_grad(),
        torch.random.fork_rng(cuda),
        reading_logits("teacher", view, classes, shape, statistics, outputs[0]),
        reading_logits("student", student, classes, shape, statistics, outputs[1]),
    ):
        view = placed_teacher(settings, view)
        world = World.current(where)
        with progress_bar(settings.iterations, shown=progress and world.is_main) as bar:
            with unchanged_on_failure(student):
                task = _training(settings, view, student.train(), shape, classes, world, folder, bar.tick)
            try:
                if task.attention and task.attention.warning:
                    warnings.warn(task.attention.warning, stacklevel=2)
                with blaming_the_teacher(task, view, shape, statistics):
                    run = _run(task, world, settings, folder, on_progress, bar)
            finally:
                task.release().eval().zero_grad()
    return TransferResult(
        student=student,
        **run._asdict(),
        settings={key: value for key, value in flatten(settings) if is_under(key, SETTINGS)},
        stopped_early=run.iterations < settings.iterations,
        input_shape=shape,
        num_classes=classes,
    )


def _training(
    settings: Config,
    teacher: nn.Module,
    student: nn.Module,
    shape: ImageShape,
    classes: int,
    world: World,
    folder: Path | None,
    tick: Tick,
) -> TransferTraining | InversionTraining:
    """The training of a method; the yardstick is among its sources where the normalisation is known."""
    further, mean, std = [], settings.data.mean, settings.data.std
    if settings.evaluation.yardstick and mean and std:
        at = folder and folder.parent / "yardsticks"
        yardstick = find_or_make(at, teacher, shape, classes, (mean, std), world, tick)
        further = [yardstick.source(Standardise(mean, std, world.device), world.device)] if yardstick else []
    if settings.method == "belief_matching":
        snapshots = folder and folder / "snapshots"
        known = (mean, std) if mean and std else None
        return TransferTraining(settings, teacher, student, shape, world, snapshots, further=further, statistics=known)
    assert mean
    assert std
    if not StatisticsGap(teacher).layers:
        warnings.warn(WITHOUT_STATISTICS, stacklevel=3)
    pool = folder and folder / "pool"
    seed = seed_images(settings, shape, world)
    return InversionTraining(
        settings,
        teacher,
        student,
        shape,
        classes,
        (mean, std),
        world,
        folder=pool,
        seed=seed,
        further=further,
        tick=tick,
    )


def _identity(settings: Config, shape: ImageShape, teacher: nn.Module, student: nn.Module) -> str:
    """Identity of a run that can continue: eight hex digits over settings, the teacher's weights and all shapes."""
    digest = hashlib.sha256(identity("train", settings).encode())
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    shapes = {name: list(tensor.shape) for name, tensor in student.state_dict().items()}
    digest.update(json.dumps([shape, shapes]).encode())
    return digest.hexdigest()[:8]


class _Run(NamedTuple):
    """The part of a `TransferResult` that comes from the run."""

    history: list[Row]
    scores: Row
    estimates: Answer | None
    seconds: float
    iterations: int


def _run(
    task: TransferTraining | InversionTraining,
    world: World,
    settings: Config,
    folder: Path | None,
    on_progress: OnProgress | None,
    bar: Bar,
) -> _Run:
    history = History(None)
    watcher = Watcher(history, task.iterations, on_progress, bar)
    stop = StopVote(world, asked=watcher.asks_to_stop)
    loop = Loop(
        task,
        world,
        None if folder is None else CheckpointStore(folder, settings.checkpoint.keep),
        Cadence.of(settings),
        evaluate=None,
        history=history,
        tracker=NullTracker(),
        stop=stop,
        progress=watcher,
        figures=None,
    )
    watcher.elapsed = loop.elapsed
    try:
        with stop.listening(signal.SIGINT):
            loop.run()
        done = task.iterations
    except Interrupted as error:
        done = error.iteration
    except KeyboardInterrupt:  # a second Ctrl-C does not wait for the current iteration
        done = watcher.done
    scores, estimates = _scores(task, history.rows, done), _estimates(task, done)
    if world.size > 1:
        _keep_average_statistics(task, world)
    return _Run(history.rows, scores, estimates, loop.elapsed(), done)


def _scores(task: TransferTraining | InversionTraining, rows: list[Row], done: int) -> Row:
    """Scores of the loop's last evaluation; computed here where the run was ended early."""
    last = rows[-1] if rows and rows[-1]["iteration"] == done else {}
    scores = {name: last[name] for name in LABEL_FREE if name in last}
    if not scores and done:
        with task.trained() as network:
            scores = task.judge(network, done)
    if scores and (drift := generator_drift(rows)) is not None:
        scores["generator_loss_drift"] = drift
    return scores


def _estimates(task: TransferTraining | InversionTraining, done: int) -> Answer | None:
    if not done:
        return None
    with task.trained() as network:
        return task.estimate(network, done)


def _keep_average_statistics(task: TransferTraining | InversionTraining, world: World) -> None:
    """Gives every rank the same student: its batch-norm statistics become the workers' average."""
    with task.trained() as network:
        with averaged_statistics(network, world):
            state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(state)
