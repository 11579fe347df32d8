"""What a model card says of a network, taken from the run's configuration and result."""

from typing import Any

from zskt_dist.config import flatten
from zskt_dist.config.keys import is_under
from zskt_dist.data.pseudo import PseudoData
from zskt_dist.errors import ConfigError
from zskt_dist.export.exported_network import NORMALISED, PIXELS, Subject, own_role
from zskt_dist.export.tables import percent
from zskt_dist.models import is_user_code
from zskt_dist.tasks.stages import stages

Record = dict[str, Any]
Rows = list[tuple[str, ...]]

CITATION = """\
@inproceedings{micaelli2019zeroshot,
  title     = {Zero-shot Knowledge Transfer via Adversarial Belief Matching},
  author    = {Micaelli, Paul and Storkey, Amos},
  booktitle = {Advances in Neural Information Processing Systems 32},
  year      = {2019},
  url       = {https://arxiv.org/abs/1905.09768}
}"""

_ZERO_SHOT = (
    "Zero-shot knowledge transfer by adversarial belief matching (Micaelli & Storkey, NeurIPS 2019): a generator "
    "searches for images on which student and teacher disagree, and the student learns to agree with the teacher there."
)
_PSEUDO_DATA = (
    "Knowledge distillation from pseudo-data: the student learns a teacher's answers to a fixed set of pseudo-images, "
    "which the generator of another student had drawn before (Micaelli & Storkey, NeurIPS 2019)."
)
_FINETUNED = "The student was then trained on with a few labelled images."
_METHODS = {
    "train": _ZERO_SHOT,
    "pseudo_data": _PSEUDO_DATA,
    "distill": "Knowledge distillation with attention transfer: the student learns from labelled images and from the "
    "teacher's answers to them.",
    "pretrain": "Supervised training on labelled images.",
}
_TAGS = {
    "train": ["knowledge-distillation", "data-free", "zero-shot-knowledge-transfer"],
    "pseudo_data": ["knowledge-distillation", "data-free"],
    "distill": ["knowledge-distillation"],
    "finetune": ["knowledge-distillation"],
}
_BELIEF_MATCHING = ("iterations", "batch_size", "seed", "generator", "transfer", "loss", "optimizer", "generator_terms")
_SUPERVISED = ("seed", "supervised", "data.images_per_class", "data.augment")
# By task: keys that shape the network, of those that the task reads.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "transfer": _BELIEF_MATCHING,
    "pseudo_data": _BELIEF_MATCHING,
    "distill": (*_SUPERVISED, "distill"),
    "finetune": ("finetune", "data.images_per_class"),
    "pretrain": _SUPERVISED,
    "scratch": _SUPERVISED,
}
_ATTENTION = ("loss.attention", "loss.attention_layers", "loss.taps", "loss.resize_maps")
_LIMITS = (
    "It knows the classes it was trained on and puts every image into one of them.",
    "It inherits the errors and biases of its teacher, and has seen no real image that could correct them.",
    "Its confidence is not calibrated beyond what is measured above; on images unlike the training data it can be "
    "confidently wrong.",
    "Agreement on generated images and noise says how alike two networks are there, not how often either is right.",
    "Test it on labelled images of your own before you rely on it.",
)


def method(subject: Subject) -> str:
    """How the run trained its network: its command, or `pseudo_data`."""
    command: str = subject.result["command"]
    return "pseudo_data" if command == "train" and subject.config.pseudo_data is not None else command


def tags(subject: Subject) -> list[str]:
    """Hugging Face's, of a student."""
    return _TAGS.get(method(subject), []) if subject.role == "student" else []


def summary(subject: Subject) -> str:
    article = f"An image classifier for {subject.num_classes} classes (`{subject.arch}`)"
    if subject.role == "teacher":
        return f"{article}, which serves as a teacher."
    if subject.result["command"] == "pretrain":
        return f"{article}, trained from scratch."
    teacher = teacher_of(subject)
    of = f"`{teacher['arch']}`" if teacher else "a teacher that is not known to this run"
    size = ""
    if teacher and "params" in teacher:
        size = f", with {percent(subject.result['student']['params'] / teacher['params'])} of its parameters"
    without = ", without any of its training images" if subject.result["command"] == "train" else ""
    return f"{article}, a student of {of}{size}{without}."


def teacher_of(subject: Subject) -> Record | None:
    """`arch` of the network that a student learnt from, and `params` or, where it learnt from pseudo-data, `sha256`."""
    if method(subject) == "pseudo_data":  # the run's teacher, if any, is one to compare with
        return (_pseudo_data(subject) or {}).get("teacher")
    return subject.result["teacher"]


def training(subject: Subject) -> str:
    """The method; of a teacher that the run was given, that nothing is known."""
    if subject.role != own_role(subject.result):
        return "Before the run that this card is made from, which was given it as a teacher."
    name = method(subject)
    if name == "finetune":
        return f"{_METHODS['train' if subject.config.pseudo_data is None else 'pseudo_data']} {_FINETUNED}"
    return _METHODS.get(name, f"By `zskt_dist.{name}`.")


def settings(subject: Subject) -> Rows:
    """Keys of the configuration that shaped the training, with their values."""
    if subject.role != own_role(subject.result):
        return []
    config, own = subject.config, subject.role
    tasks = [stage.task for stage in stages(subject.result["command"], config) if stage.task.role == own]
    idle: tuple[str, ...] = () if config.generator_terms.active else ("generator_terms",)
    if not config.loss.beta:
        idle += _ATTENTION

    def shaped(key: str) -> bool:
        read = (is_under(key, _SETTINGS[task.name]) and is_under(key, task.reads) for task in tasks)
        return any(read) and not is_under(key, idle)

    leaves = dict(flatten(config)) | {"supervised.iterations": config.supervised_iterations}
    return [(f"`{key}`", f"`{value}`") for key, value in leaves.items() if value is not None and shaped(key)]


def data_used(subject: Subject) -> str:
    """Which images the network has seen."""
    result = subject.result
    if subject.role != own_role(result):
        return "Not known to this run."
    if result["command"] == "train":
        images = "images that a generator makes of noise"
        if method(subject) == "pseudo_data":
            about = _pseudo_data(subject)
            images = (f"{about['images']:,} " if about else "") + "pseudo-images that had been made before"
        return (
            f"None. The student learnt from {images}; test images, where there were any, only measured it. The teacher "
            "had its own training data."
        )
    many = result.get("images_per_class")
    which = f"{many} labelled training images per class" if many else "All labelled training images"
    return f"{which} of {result['dataset']}."


def limits(subject: Subject) -> str:
    sentences = list(_LIMITS)
    if subject.role == "teacher" or subject.result["command"] != "train":
        sentences[1] = "It inherits the errors and biases of what it was trained with."
    return "\n".join(f"- {sentence}" for sentence in sentences)


def input_of(subject: Subject, record: Record) -> str:
    """What images have to be like."""
    inputs = [entry["input"] for entry in (*record["files"].values(), record.get("mlflow")) if entry]
    shape = ", ".join(map(str, subject.image_shape))
    text = f"All take float32 images `[B, {shape}]`, channels first, and answer logits `[B, {subject.num_classes}]`."
    if subject.mean is None or subject.std is None:
        return f"{text} The run does not say how its images were normalised."
    text += (
        f" *{NORMALISED.capitalize()}* are bytes divided by 255, minus mean {list(subject.mean)}, divided by standard "
        f"deviation {list(subject.std)}, channel by channel."
    )
    if PIXELS in inputs:
        text += f" *{PIXELS.capitalize()}* are bytes divided by 255 and nothing else: the program normalises them."
    return text


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


def int8_agreement(record: Record) -> str:
    """How often the int8 file predicts the same class as the network; empty without one."""
    shares = record["files"].get("int8", {}).get("agreement", {})
    where = {"noise": "normal noise", "pseudo_images": "pseudo-images of the run's generator"}
    told = [f"on {percent(share)} of {where[name]}" for name, share in shares.items()]
    return f"it predicts the same class {' and '.join(told)}" if told else ""


def _pseudo_data(subject: Subject) -> Record | None:
    """What the pseudo-data that the run learnt from was made from; None where the folder is gone, or holds others."""
    try:
        data = PseudoData.open(str(subject.config.pseudo_data))
        data.check(subject.image_shape, subject.num_classes)
    except ConfigError:
        return None
    return data.about
