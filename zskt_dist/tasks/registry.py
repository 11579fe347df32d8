"""All tasks there are: the one place that lists them, and imports none of what they need to train.

A task is what one stage does: most train a network, two work on a finished run. Its entry says which command it serves,
which keys it reads (its identity follows from them) and which weights it begins with; its module has the rest:
`describe` and `start`, or `run` (see `tasks.base`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from zskt_dist.config import Config


@dataclass(frozen=True)
class Need:
    """Weights that a task begins with.

    Attributes:
        role: Role of the network, `teacher` or `student`.
        key: Configuration key that names the file of weights.
        made_by: Command that makes the weights first where the key is null; None: the task then does without them.
        otherwise: What the user can do where the file is missing.
    """

    role: str
    key: str
    made_by: str | None
    otherwise: str = "say where it is"

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that decide which weights these are."""
        prefix = ("teacher.prefix",) if self.role == "teacher" else ()
        return self.key, *prefix, f"{self.role}.arch", f"{self.role}.options", f"{self.role}.output"


@dataclass(frozen=True)
class Task:
    """What one stage does, described without importing anything heavy.

    Attributes:
        command: The command that ends with this task.
        module: Name of the module with `describe` and `start`, or `run`.
        reads: Keys and sections of the configuration that decide the task's result.
        role: Role of the network that the task trains.
        needs: Weights that the task begins with.
        label: Part of a run's name between the experiment and the hash.
        serves: Returns True if `command` means this task with a given configuration.
        real_images: True if the task learns from labelled real images, `data.images_per_class` of each class.
        compares: Section whose `beta` weighs the attention term; None: the task compares no attention maps.
        needs_test_images: True if the task cannot run without test images.
        opens_images: True if the task opens the data set; otherwise a file declares the shape of the images.
        makes_images: True if the task makes images by gradients through teacher and student, whose memory
            `tasks.memory` can estimate beforehand.
        trains: False if the module has `run` instead of `start`, which works on the directory of a finished run.
    """

    name: str
    command: str
    module: str
    reads: tuple[str, ...]
    role: str = "student"
    needs: tuple[Need, ...] = ()
    label: str = ""
    serves: Callable[[Config], bool] = lambda config: True
    real_images: bool = False
    compares: str | None = None
    trains: bool = True
    makes_images: bool = False
    needs_test_images: bool = False
    opens_images: bool = True

    def images_per_class(self, config: Config) -> int | None:
        """M, number of labelled images per class that the network learns from; None: all, as a teacher's, or none."""
        return config.data.images_per_class if self.real_images and self.role == "student" else None


_TEACHER = Need("teacher", "teacher.checkpoint", "pretrain", "null trains a teacher first")
_RUN = ("seed", "seeds", "device", "launch", "evaluation", "student")
_ENGINE = tuple(
    f"engine.{key}" for key in ("kind", "batch_norm", "zero_stage", "offload_optimizer", "offload_parameters")
)
_IMAGES = tuple(f"data.{key}" for key in ("name", "root", "image_shape", "num_classes", "class_names", "mean", "std"))
_REAL_IMAGES = (*_IMAGES, "data.augment", "data.images_per_class")
_RECIPE = ("iterations", "batch_size", "learning_rate", "momentum", "weight_decay", "milestones", "decay")
_SUPERVISED = tuple(f"supervised.{key}" for key in _RECIPE)
_ATTENTION = ("loss.attention", "loss.attention_layers", "loss.taps", "loss.resize_maps")

_TASKS = (
    Task(
        name="pretrain",
        command="pretrain",
        module="zskt_dist.tasks.pretrain",
        reads=(
            *("seed", "seeds", "teacher.seed", "teacher.arch", "teacher.options", "teacher.output"),
            *("engine.batch_norm", *_SUPERVISED),
            *("data.name", "data.root", "data.num_classes", "data.class_names", "data.mean", "data.std"),
            "data.augment",
        ),
        role="teacher",
        serves=lambda config: config.supervised.network == "teacher",
        real_images=True,
    ),
    Task(
        name="scratch",
        command="pretrain",
        module="zskt_dist.tasks.pretrain",
        reads=(*_RUN, *_ENGINE, *_REAL_IMAGES, *_SUPERVISED),
        label="scratch-",
        serves=lambda config: config.supervised.network == "student",
        real_images=True,
    ),
    Task(
        name="transfer",
        command="train",
        module="zskt_dist.tasks.transfer",
        reads=(
            *(*_RUN, *_IMAGES, "engine", "speed", "iterations", "batch_size"),
            *("generator", "transfer", "loss", "generator_terms", "optimizer"),
        ),
        needs=(_TEACHER,),
        serves=lambda config: config.pseudo_data is None and config.method == "belief_matching",
        compares="loss",
        makes_images=True,
    ),
    Task(
        name="inversion",
        command="train",
        module="zskt_dist.tasks.inversion",
        reads=(
            *(*_RUN, *_IMAGES, "engine", "speed", "iterations", "batch_size", "method"),
            *("generator", "inversion", "optimizer.student_lr", "optimizer.clip_norm"),
        ),
        needs=(_TEACHER,),
        makes_images=True,
        serves=lambda config: config.pseudo_data is None and config.method == "inversion",
    ),
    Task(
        name="pseudo_data",
        command="train",
        module="zskt_dist.tasks.pseudo_data",
        reads=(
            *(*_RUN, *_IMAGES, "engine", "speed", "iterations", "batch_size", "pseudo_data"),
            *("loss.divergence", "loss.temperature", "loss.reduction", "optimizer.student_lr", "optimizer.clip_norm"),
        ),
        needs=(Need("teacher", "teacher.checkpoint", None, "null does without"),),
        serves=lambda config: config.pseudo_data is not None,
    ),
    Task(
        name="distill",
        command="distill",
        module="zskt_dist.tasks.distill",
        reads=(*_RUN, *_ENGINE, "engine.teacher", *_REAL_IMAGES, *_SUPERVISED, "distill", *_ATTENTION),
        needs=(_TEACHER,),
        label="distill-",
        real_images=True,
        compares="distill",
    ),
    Task(
        name="finetune",
        command="finetune",
        module="zskt_dist.tasks.finetune",
        reads=(*_RUN, *_ENGINE, "engine.teacher", *_REAL_IMAGES, "finetune"),
        needs=(_TEACHER, Need("student", "finetune.student", "train", "null trains the zero-shot student first")),
        label="finetune-",
        real_images=True,
    ),
    Task(
        name="evaluate",
        command="evaluate",
        module="zskt_dist.tasks.evaluate",
        reads=(),
        trains=False,
        needs_test_images=True,
    ),
    Task(
        name="synthesize",
        command="synthesize",
        module="zskt_dist.tasks.synthesize",
        reads=(),
        trains=False,
        opens_images=False,
    ),
)
TASKS = {task.name: task for task in _TASKS}


def all_reads(task: Task) -> tuple[str, ...]:
    """Keys that decide a task's result in some configuration: its own, and those of tasks that make its weights."""
    reads = task.reads
    for need in task.needs:
        makers = (each for each in TASKS.values() if each.command == need.made_by and each.role == need.role)
        reads += (*need.keys, *(key for each in makers for key in all_reads(each)))
    return reads


def task_of(command: str, config: Config) -> Task:
    """The last task of a command."""
    found = [task for task in TASKS.values() if task.command == command and task.serves(config)]
    assert len(found) == 1, f"{command} stands for {[task.name for task in found]}: exactly one task must serve"
    return found[0]
