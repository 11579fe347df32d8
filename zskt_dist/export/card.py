"""A Hugging Face model card of what has been exported, from the run's configuration and result.

huggingface_hub is imported late.
"""

import re
from pathlib import Path
from typing import Any

from zskt_dist.config import Config, flatten
from zskt_dist.config.keys import is_under
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.errors import ConfigError
from zskt_dist.export import quality
from zskt_dist.export.exported_network import PIXELS, ExportedNetwork, own_role
from zskt_dist.export.tables import earlier_files, files_table, networks_table, percent, thread_count
from zskt_dist.files import read_bytes, write_atomic
from zskt_dist.markup import code, plain
from zskt_dist.models import is_user_code
from zskt_dist.runs.conclusion import conclusion
from zskt_dist.tasks.stages import stages

PICTURE = "run.png"
"""Beside the card: the run's curves and, where there are any, its pseudo-images."""
Record = dict[str, Any]
Rows = list[tuple[str, ...]]

_ZERO_SHOT = (
    "Zero-shot knowledge transfer by adversarial belief matching (Micaelli & Storkey, NeurIPS 2019): a generator "
    "searches for images on which student and teacher disagree, and the student learns to agree with the teacher there."
)
_PSEUDO_DATA = (
    "Knowledge distillation from pseudo-data: the student learns a teacher's answers to a fixed set of pseudo-images, "
    "which {made}."
)
_MADE = {
    "belief_matching": "the generator of another student had drawn before (Micaelli & Storkey, NeurIPS 2019)",
    "inversion": "an inversion of the teacher had made for another student before (after Yin et al., CVPR 2020)",
    None: "had been made before",
}
"""By the method of pseudo-data; None: their folder is gone."""
_INVERSION = (
    "Data-free distillation by inversion of the teacher: a generator makes images with the statistics that the "
    "teacher's normalisation layers remember of its training images (after Yin et al., CVPR 2020), as many of each "
    "class, and the student learns the teacher's answers to them."
)
_FINETUNED = "The student was then trained on with a few labelled images."
_METHODS = {
    "train": _ZERO_SHOT,
    "inversion": _INVERSION,
    "pseudo_data": _PSEUDO_DATA,
    "distill": "Knowledge distillation with attention transfer: the student learns from labelled images and from the "
    "teacher's answers to them.",
    "pretrain": "Supervised training on labelled images.",
}
_TAGS = {
    "train": ["knowledge-distillation", "data-free", "zero-shot-knowledge-transfer"],
    "inversion": ["knowledge-distillation", "data-free"],
    "pseudo_data": ["knowledge-distillation", "data-free"],
    "distill": ["knowledge-distillation"],
    "finetune": ["knowledge-distillation"],
}
_BELIEF_MATCHING = ("iterations", "batch_size", "seed", "generator", "transfer", "loss", "optimizer", "generator_terms")
_SUPERVISED = ("seed", "supervised", "data.images_per_class", "data.augment")
# By task: keys that shape the network, of those that the task reads.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "transfer": _BELIEF_MATCHING,
    "inversion": ("iterations", "batch_size", "seed", "generator", "inversion", "optimizer"),
    "pseudo_data": _BELIEF_MATCHING,
    "distill": (*_SUPERVISED, "distill"),
    "finetune": ("finetune", "data.images_per_class"),
    "pretrain": _SUPERVISED,
    "scratch": _SUPERVISED,
}
_ATTENTION = ("loss.attention", "loss.attention_layers", "loss.taps", "loss.resize_maps")


_PICTURES = ("overview.png", "training.png")


def write_card(exported: ExportedNetwork, record: Record, path: Path) -> None:
    """Writes the card, and beside it a picture of the training where the run has one.

    Args:
        record: The content of `export.json`: what has been exported, with sizes and latencies.
    """
    from huggingface_hub import ModelCard

    result = exported.result
    estimates = (result.get("estimates") or {}) if exported.role == "student" else {}
    files = record["files"].values()
    card = ModelCard.from_template(
        _metadata(exported),
        template_path=str(Path(__file__).with_name("card.md")),
        exported=exported,
        record=record,
        title=plain(_name(exported)),
        arch=_cell(code(exported.arch)),
        teacher_arch=_cell(code(str((teacher_of(exported) or {}).get("arch")))),
        run=code(f"{record['run']['experiment']}/{record['run']['name']}"),
        summary=summary(exported),
        conclusion=plain(" ".join(concluded(exported, record))),
        parameters=record["networks"][exported.role]["parameters"],
        teacher=teacher_of(exported) if exported.role == "student" else None,
        training=training(exported),
        settings=markdown(("setting", "value"), settings(exported)),
        picture=_copy_picture(exported, path.with_name(PICTURE)),
        data=data_used(exported),
        measured=markdown(*quality.measured_table(exported)),
        estimates=estimates,
        yardstick=result.get("yardstick") if exported.role == "student" else None,
        estimated=markdown(*quality.estimates_table(estimates)),
        inherits_from_teacher=exported.role == "student" and result["command"] == "train",
        inverted=_is_inverted(exported),
        classes=", ".join(map(plain, exported.class_names or ())),
        shape=", ".join(map(str, exported.image_shape)),
        takes_pixels=PIXELS in [entry["input"] for entry in (*files, record.get("mlflow")) if entry],
        examples=examples(record),
        networks=markdown(*networks_table(record)),
        files=markdown(*files_table(record)),
        threads=thread_count(record["threads"]),
        agreement=record["files"].get("int8", {}).get("agreement", {}),
        earlier="; ".join(earlier_files(record)),
        percent=percent,
    )
    write_atomic(path, str(card))


def _copy_picture(exported: ExportedNetwork, path: Path) -> str | None:
    """Copies the picture of the network's training; returns its name, None where there is none."""
    figures = exported.directory.figures
    there = [content for name in _PICTURES if (content := read_bytes(figures / name))]
    if not there or exported.role != own_role(exported.result):
        return None
    write_atomic(path, there[0])
    return path.name


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table; empty without rows."""
    lines = [header, ("---",) * len(header), *rows] if rows else []
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """A cell on one line; names in it are `plain`, values `code`, and bars need their backslash even there."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _metadata(exported: ExportedNetwork) -> Any:
    """The front matter: Hugging Face's own keys, and the measured accuracy where there is one."""
    from huggingface_hub import EvalResult, ModelCardData

    about = {"task_type": "image-classification", "metric_type": "accuracy", "dataset_split": "test"}
    scores = [
        EvalResult(**about, dataset_type=dataset, dataset_name=dataset, metric_value=round(accuracy, 4))
        for dataset, accuracy in quality.accuracies(exported).items()
    ]
    return ModelCardData(
        library_name="zskt_dist",
        pipeline_tag="image-classification",
        tags=tags(exported) or None,
        model_name=_name(exported),
        metrics=["accuracy"] if scores else None,
        eval_results=scores or None,
    )


def _name(exported: ExportedNetwork) -> str:
    return f"{exported.result['experiment']}-{exported.role}"


def method(exported: ExportedNetwork) -> str:
    """How the run trained its network: its command, or for a `train` what it stands for."""
    command: str = exported.result["command"]
    return _without_data(exported.config) if command == "train" else command


def _without_data(config: Config) -> str:
    """`train` (Algorithm 1), `inversion` or `pseudo_data`."""
    if config.pseudo_data is not None:
        return "pseudo_data"
    return "inversion" if config.method == "inversion" else "train"


def tags(exported: ExportedNetwork) -> list[str]:
    """Hugging Face's, of a student."""
    found = _TAGS.get(method(exported), []) if exported.role == "student" else []
    return [tag for tag in found if tag != "data-free" or _is_data_free(exported)]


def summary(exported: ExportedNetwork) -> str:
    article = f"An image classifier for {exported.num_classes} classes ({code(exported.arch)})"
    if exported.role == "teacher":
        return f"{article}, which serves as a teacher."
    if exported.result["command"] == "pretrain":
        return f"{article}, trained from scratch."
    teacher = teacher_of(exported)
    of = code(teacher["arch"]) if teacher else "a teacher that is not known to this run"
    size = ""
    if teacher and "params" in teacher:
        size = f", with {percent(exported.result['student']['params'] / teacher['params'])} of its parameters"
    without = ", without any of its training images" if _is_data_free(exported) else ""
    return f"{article}, a student of {of}{size}{without}."


def concluded(exported: ExportedNetwork, record: Record) -> list[str]:
    """What the run comes to, with the latencies of this export; empty for a teacher."""
    if exported.role == "teacher":
        return []
    return conclusion(exported.result, {role: each["latency_ms"] for role, each in record["networks"].items()})


def teacher_of(exported: ExportedNetwork) -> Record | None:
    """`arch` of the network that a student learnt from, and `params` or, where it learnt from pseudo-data, `sha256`."""
    if method(exported) == "pseudo_data":  # the run's teacher, if any, is one to compare with
        return (_pseudo_data(exported) or {}).get("teacher")
    return exported.result["teacher"]


def training(exported: ExportedNetwork) -> str:
    """The method; of a teacher that the run was given, that nothing is known."""
    if exported.role != own_role(exported.result):
        return "Before the run that this card is made from, which was given it as a teacher."
    name = method(exported)
    how = _without_data(exported.config) if name == "finetune" else name
    text = _METHODS.get(how, f"By `zskt_dist.{name}`.")
    if how == "pseudo_data":
        text = text.format(made=_MADE[_maker(exported)])
    return f"{text} {_FINETUNED}" if name == "finetune" else text


def settings(exported: ExportedNetwork) -> Rows:
    """Keys of the configuration that shaped the training, with their values."""
    if exported.role != own_role(exported.result):
        return []
    config, own = exported.config, exported.role
    tasks = [stage.task for stage in stages(exported.result["command"], config) if stage.task.role == own]
    idle: tuple[str, ...] = () if config.generator_terms.active else ("generator_terms",)
    if not config.loss.beta:
        idle += _ATTENTION

    def shaped(key: str) -> bool:
        read = (is_under(key, _SETTINGS.get(task.name, task.reads)) and is_under(key, task.reads) for task in tasks)
        return any(read) and not is_under(key, idle)

    leaves = dict(flatten(config)) | {"supervised.iterations": config.supervised_iterations}
    return [(code(key), code(str(value))) for key, value in leaves.items() if value is not None and shaped(key)]


def data_used(exported: ExportedNetwork) -> str:
    """Which images the network has seen."""
    result = exported.result
    if exported.role != own_role(result):
        return "Not known to this run."
    if result["command"] == "train":
        return f"{_without_labels(exported)} The teacher had its own training data."
    many = result.get("images_per_class")
    which = f"{many} labelled training images per class" if many else "All labelled training images"
    return f"{which} of {plain(result['dataset'])}."


def _without_labels(exported: ExportedNetwork) -> str:
    """Which images a student of `train` has seen."""
    about: Record | None = exported.result
    images = "images that a generator makes of noise"
    if method(exported) == "pseudo_data":
        about = _pseudo_data(exported)
        images = (f"{about['images']:,} " if about else "") + "pseudo-images that had been made before"
    if about is None:
        return f"{images.capitalize()}. Their folder is gone: it is not known whether they were made without data."
    if seed := about.get("seed_images"):
        given = f"{seed['images']:,} images without labels that were given (SHA-256 of their pixels `{seed['sha256']}`)"
        if about is exported.result:
            return f"{given}, and {images}: the student is not data-free."
        return f"{images}. The run that made them also learnt from {given}: the student is not data-free."
    return f"None. The student learnt from {images}; test images, where there were any, only measured it."


def examples(record: Record) -> list[tuple[str, str]]:
    """Title and Python code for each format that has been exported."""
    found = []
    for name, entry in record["files"].items():
        file, takes = entry["file"], entry["input"]
        if name == "safetensors":
            allowed = f', arch="{record["arch"]}"' if is_user_code(record["arch"]) else ""
            code = (
                "from zskt_dist.export.load import load_network\n"
                f'network, config = load_network("."{allowed})  # the folder of config.json\n'
                "logits = network(images)"
            )
        elif name == "pt2":
            code = f'import torch\nnetwork = torch.export.load("{file}").module()\nlogits = network(images)'
        else:
            code = (
                "import onnxruntime\n"
                f'session = onnxruntime.InferenceSession("{file}")\n'
                '(logits,) = session.run(["logits"], {"images": images.numpy()})'
            )
        found.append((f"`{file}`, which takes {takes}", code))
    if model := record.get("mlflow"):
        code = (
            "import mlflow\n"
            f'network = mlflow.pytorch.load_model("models:/{model["name"]}/{model["version"]}")\n'
            "logits = network(images)"
        )
        found.append((f"The registered model, from its MLflow store, which takes {model['input']}", code))
    return found


def _is_data_free(exported: ExportedNetwork) -> bool:
    """True if a student of `train` has learnt without images of a user; of pseudo-data, if their folder says so."""
    about = _pseudo_data(exported) if method(exported) == "pseudo_data" else exported.result
    return exported.result["command"] == "train" and about is not None and not about.get("seed_images")


def _is_inverted(exported: ExportedNetwork) -> bool:
    """True if the student has learnt from images of an inversion."""
    if exported.role != "student" or exported.result["command"] not in ("train", "finetune"):
        return False
    how = _without_data(exported.config)
    return how == "inversion" or (how == "pseudo_data" and _maker(exported) == "inversion")


def _maker(exported: ExportedNetwork) -> str | None:
    """Method of the run that made the pseudo-data; None where their folder is gone."""
    about = _pseudo_data(exported)
    return None if about is None else about.get("method", "belief_matching")


def _pseudo_data(exported: ExportedNetwork) -> Record | None:
    """What the pseudo-data that the run learnt from was made from; None where the folder is gone, or holds others."""
    try:
        data = PseudoData.open(str(exported.config.pseudo_data))
        data.check(exported.image_shape, exported.num_classes)
    except ConfigError:
        return None
    return data.about
