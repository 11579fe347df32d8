"""The way from a teacher to its configuration file."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from zskt_dist.config import Config, parse_config
from zskt_dist.config.inputs import BROUGHT, is_brought
from zskt_dist.config.load import assign
from zskt_dist.doctor.teacher import KEY, ExaminedTeacher, examined_teacher
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.files import check_json, write_atomic
from zskt_dist.init import answers
from zskt_dist.init.answers import Found, Question, ask
from zskt_dist.init.document import document, name_of
from zskt_dist.init.images import Images
from zskt_dist.init.settling import Settling, of_option
from zskt_dist.init.students import Size, choose, share_of, size_of, table_of
from zskt_dist.models import count_parameters, is_user_code
from zskt_dist.networks.weights import WeightsFile
from zskt_dist.speed import multiply_adds

log = logging.getLogger(__name__)

Tree = dict[str, Any]

_SMALL = 32
"""Pixels of the longer side up to which a generator of few channels is enough."""


@dataclass(frozen=True)
class Wanted:
    """The command line, as it was typed.

    Attributes:
        words: The weights, if they are a file, and `key=value`.
        output: The file to write; one that is there is replaced with `force` only.
        yes: True if values that are merely usual are taken without asking.
    """

    net: str
    words: tuple[str, ...] = ()
    image_shape: str | None = None
    classes: str | None = None
    mean: str | None = None
    std: str | None = None
    student: str | None = None
    test_images: str | None = None
    output: Path = Path("zskt.yaml")
    force: bool = False
    yes: bool = False


def write_configuration(wanted: Wanted, *, asking: bool, console: Console | None = None) -> None:
    """Settles everything that a run needs, and writes the file.

    Args:
        asking: True if there is somebody at a terminal to answer.

    Raises:
        UserError: the teacher cannot be used, something is missing, contradictory or wrong, or the file is there.
    """
    console = console or Console()
    _check_output(wanted)
    settling = Settling(asking and not wanted.yes, wanted.yes, _stated(wanted))
    _ = settling.config  # what is stated is right by itself
    checkpoint = settling.tree["teacher"]["checkpoint"]
    file = None if is_brought(checkpoint) else WeightsFile.open(checkpoint, KEY)
    Images(settling, file).settle()
    settling.check_missing()
    teacher = examined_teacher(settling.config, quiet=True)
    print()
    for topic, text in teacher.lines:
        print(f"{topic:12} {text}")
    teacher_size, student_size = _settle_student(settling, teacher, console)
    if student_size.parameters >= teacher_size.parameters:
        log.warning("%s has no fewer parameters than the teacher", student_size.arch)
    tree = _ordered(settling.tree, teacher)
    _write(wanted, document(tree, str(wanted.output), _comments(settling, teacher, teacher_size, student_size)))
    print(f"\nwrote {wanted.output}")


def _check_output(wanted: Wanted) -> None:
    """Checks before anything is asked that the file can be written, and that none is lost."""
    if wanted.output.is_file() and not wanted.force:
        raise _exists(wanted.output)
    check_json(wanted.output, "--output")


def _write(wanted: Wanted, text: str) -> None:
    if not wanted.force:
        try:
            wanted.output.touch(exist_ok=False)  # from here on the name is ours
        except FileExistsError:
            raise _exists(wanted.output) from None
    write_atomic(wanted.output, text)


def _exists(output: Path) -> ConfigError:
    problem = "exists already, and is kept; name another file with --output, or have it replaced with --force"
    return ConfigError("--output", str(output), problem)


def _stated(wanted: Wanted) -> Tree:
    """Keys and values of the command line.

    Raises:
        UserError: a word is not understood, an option is wrong, or no weights are named where they are needed.
    """
    location, settings = _parted(wanted.words)
    tree: Tree = {"teacher": {}, "student": {}, "data": {"name": "none"}}
    for word in settings:
        assign(tree, word)
    parse_config(tree)  # sections are sections, and keys are known
    teacher, student, data = tree["teacher"], tree["student"], tree["data"]
    if wanted.student is not None:
        student["arch"] = wanted.student
    for name in [name for name, value in data.items() if value is None]:
        del data[name]  # null: it is not stated
    teacher["arch"] = wanted.net
    teacher["checkpoint"] = location or teacher.get("checkpoint")
    if teacher["checkpoint"] is None:
        if not is_user_code(wanted.net):
            problem = f"is made without weights; name the file that has them: zskt init {wanted.net} FILE"
            raise UserError(f"{wanted.net} {problem}")
        teacher["checkpoint"] = BROUGHT
    if wanted.test_images is not None:
        data |= {"name": "parquet", "root": wanted.test_images}
    if wanted.image_shape is not None:
        data["image_shape"] = list(of_option("--image-shape", wanted.image_shape, answers.read_shape))
    if wanted.classes is not None:
        data["num_classes"] = of_option("--classes", wanted.classes, answers.read_count)
    if wanted.mean is not None:
        data["mean"] = list(of_option("--mean", wanted.mean, answers.read_mean))
    if wanted.std is not None:
        data["std"] = list(of_option("--std", wanted.std, answers.read_std))
    return tree


def _parted(words: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """The location of the weights, and settings; a file may be called `epoch=9.ckpt`.

    Raises:
        UserError: there is more than one location.
    """
    settings = [word for word in words if _is_setting(word)]
    others = [word for word in words if word not in settings]
    if len(others) > 1:
        raise UserError(f"{others[1]!r}: {others[0]} is the file of weights already, and settings are key=value")
    return (others[0] if others else None), settings


def _is_setting(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and key.partition(".")[0] in Config.model_fields and not Path(word).is_file()


def _settle_student(settling: Settling, teacher: ExaminedTeacher, console: Console) -> tuple[Size, Size]:
    """Sizes of the teacher and of the student, which is stated, chosen or asked for.

    Raises:
        UserError: the stated one cannot be built, or none fits and there is nobody to ask.
    """
    shape, classes = teacher.inputs.image_shape, teacher.inputs.num_classes
    network = teacher.network
    size = Size(teacher.config.teacher.arch, count_parameters(network), multiply_adds(network, shape))
    section = settling.tree["student"]

    def read(arch: str) -> Size:
        section["arch"] = arch
        return size_of(settling.config, shape, classes)

    if "arch" in section:
        try:
            stated = read(section["arch"])
        except ConfigError as error:
            if not settling.asking:
                raise
            print(f"{error}; choose another one")  # nothing that was answered so far is lost
        else:
            console.print(table_of(size, [stated], None))
            return size, stated
    choice = choose(size, settling.config, shape, classes)
    best = choice.best
    if best is not None:
        console.print(table_of(size, choice.fitting, best))
    elif not settling.asking:
        raise UserError(f"{size.arch} is smaller than all students that are tried here; name one with --student")
    if best is not None and not settling.asking:
        return size, read(best.arch)
    question = Question(
        "--student",
        "student",
        "Which network is to be trained? One of these, or any other by its name: timm:NAME, torchvision:NAME, or "
        "package.module:callable for code of yours.",
        "wrn-16-1",
        read,
        lambda each: each.arch,
    )
    return size, ask(question, best and Found(best, "which is recommended"))


def _ordered(settled: Tree, teacher: ExaminedTeacher) -> Tree:
    """What was settled, with the settings of a method that suits, in the order of a file that is read top down."""
    method = settled.get("method", teacher.method)
    small = max(teacher.inputs.image_shape[1:]) <= _SMALL
    usual: Tree = {
        "experiment": name_of(settled["teacher"]["arch"]),
        "method": method,
        "iterations": 2500,
        "batch_size": 64,
        "teacher": {"arch": None, "checkpoint": None},
        "student": {"arch": None},
        "data": {"name": None, **dict.fromkeys(["root"] if "root" in settled["data"] else [])},
        **({"inversion": {"flip": False}} if method == "inversion" else {"loss": {"beta": 0.0}}),
        **({"generator": {"channels": [32, 16]}} if small else {}),
        "evaluation": {"every": 250},
        "checkpoint": {"every": 250},
    }
    usual["data"] |= dict.fromkeys(("image_shape", "num_classes", "mean", "std"))
    for key, value in settled.items():
        inner = usual.get(key)
        usual[key] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    return usual


def _comments(settling: Settling, teacher: ExaminedTeacher, size: Size, student: Size) -> dict[str, str]:
    """Comments on what is particular to this file, by dotted key."""
    tree, sources = settling.tree, settling.sources
    share = share_of(student.parameters, size.parameters)
    method = {
        "inversion": "images with the statistics that the teacher's batch norm remembers (docs/inversion.md)",
        "belief_matching": "Algorithm 1 of the paper: the teacher has no batch norm, which inversion needs",
    }
    notes = {
        "method": method[tree.get("method", teacher.method)],
        "teacher.arch": f"{size.parameters:,} parameters",
        "student.arch": f"{student.parameters:,} parameters, {share} of the teacher's",
    }
    if is_brought(tree["teacher"]["checkpoint"]):
        notes["teacher.checkpoint"] = "the code of teacher.arch brings them"
    if tree["data"]["name"] == "none":
        notes["data.name"] = "no images; to measure accuracy: name: parquet and root: FOLDER (docs/images.md)"
    else:
        notes["data.name"] = "test images, which the student never learns from (docs/images.md)"
    texts = {"data.image_shape": "channels, height, width", "data.num_classes": "", "data.std": ""}
    for key, source in sources.items():
        text = texts.get(key, "of pixels in [0, 1]")
        notes[key] = "; ".join(filter(None, [text, " ".join(source.split())]))
    return notes
