"""What a model card says of a network, taken from the run's configuration, result and evaluation."""

from typing import Any

from zskt_dist.config import flatten
from zskt_dist.config.load import is_under
from zskt_dist.deploy.subject import NORMALISED, PIXELS, Subject, own_role
from zskt_dist.deploy.tables import percent
from zskt_dist.files import read_json

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
_METHODS = {
    "train": _ZERO_SHOT,
    "distill": "Knowledge distillation with attention transfer: the student learns from labelled images and from the "
    "teacher's answers to them.",
    "finetune": f"{_ZERO_SHOT} The student was then trained on with a few labelled images.",
    "pretrain": "Supervised training on labelled images.",
}
_SETTINGS = {
    "train": ("iterations", "batch_size", "seed", "generator", "transfer", "loss", "optimizer", "generator_terms"),
    "distill": ("iterations", "seed", "distill", "supervised", "data.images_per_class", "data.augment"),
    "finetune": ("iterations", "seed", "finetune", "transfer", "loss", "optimizer", "data.images_per_class"),
    "pretrain": ("iterations", "seed", "supervised", "data.images_per_class", "data.augment"),
}

_ESTIMATES = {
    "held_out_agreement": ("agreement on pseudo-images of the generator at several moments of the run", percent),
    "noise_agreement": ("agreement on standard normal noise", percent),
    "label_free_score": ("mean agreement over all these sources", percent),
    "held_out_kl": ("mean KL(teacher, student) over them, in nats", "{:.4f}".format),
}
_LIMITS = (
    "It knows the classes it was trained on and puts every image into one of them.",
    "It inherits the errors and biases of its teacher, and has seen no real image that could correct them.",
    "Its confidence is not calibrated beyond what is measured above; on images unlike the training data it can be "
    "confidently wrong.",
    "Agreement on generated images and noise says how alike two networks are there, not how often either is right.",
    "Test it on labelled images of your own before you rely on it.",
)


def summary(subject: Subject) -> str:
    article = f"An image classifier for {subject.num_classes} classes (`{subject.arch}`)"
    if subject.role == "teacher":
        return f"{article}, which serves as a teacher."
    if subject.result["teacher"] is None:
        return f"{article}, trained from scratch."
    without = ", without any of its training images" if subject.result["command"] == "train" else ""
    return f"{article}, a small student of a larger teacher (`{subject.result['teacher']['arch']}`){without}."


def training(subject: Subject) -> str:
    """The method; of a teacher that the run was given, that nothing is known."""
    if subject.role != own_role(subject.result):
        return "Before the run that this card is made from, which was given it as a teacher."
    return _METHODS.get(subject.result["command"], f"By `zskt_dist.{subject.result['command']}`.")


def settings(subject: Subject) -> Rows:
    """Keys of the configuration that shaped the training, with their values."""
    if subject.role != own_role(subject.result):
        return []
    chosen = _SETTINGS.get(subject.result["command"], ("iterations", "batch_size", "seed"))
    idle = () if subject.config.generator_terms.active else ("generator_terms",)
    return [
        (f"`{key}`", f"`{value}`")
        for key, value in flatten(subject.config)
        if value is not None and is_under(key, chosen) and not is_under(key, idle)
    ]


def data_used(subject: Subject) -> str:
    """Which images the network has seen."""
    result = subject.result
    if subject.role != own_role(result):
        return "Not known to this run."
    if result["command"] == "train":
        return (
            "None. The student learnt from images that a generator makes of noise; test images, where there were any, "
            "only measured it. The teacher had its own training data."
        )
    many = result.get("images_per_class")
    which = f"{many} labelled training images per class" if many else "All labelled training images"
    return f"{which} of {result['dataset']}."


def measured(subject: Subject) -> Rows:
    """Metric, value of this network, value of its teacher; on real test images."""
    result, teacher = subject.result, subject.result["teacher"] or {}
    if subject.role == "teacher":
        own = teacher.get("accuracy")
        return [("accuracy", percent(own), "")] if own is not None else []
    student = result["student"]
    rows = [
        _row("accuracy", student["accuracy_last"], teacher.get("accuracy"), percent),
        _row("agreement: same class as the teacher", student["agreement"], None, percent),
    ]
    answer = read_json(subject.directory.evaluation / "evaluation.json") or {}
    errors = {who: values["ece"] for who, values in answer.get("calibration", {}).items()}
    rows.append(_row("expected calibration error (ECE)", errors.get("student"), errors.get("teacher"), _number))
    if mte := result.get("mte"):
        how = f"K = {mte['steps']}, step {mte['step_size']:g}, {mte['images']:g} images"
        rows.append(_row(f"mean transition error (MTE; {how})", mte["value"], None, _number))
    return [row for row in rows if row]


def estimated(subject: Subject) -> Rows:
    """Label-free scores and what they mean; nothing for a network that was not judged without labels."""
    scores = subject.result.get("estimates") or {}
    if subject.role == "teacher":
        return []
    return [(what, shown(scores[name])) for name, (what, shown) in _ESTIMATES.items() if scores.get(name) is not None]


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
            code = (
                "from zskt_dist.deploy.weights import load_network\n"
                'network, config = load_network(".")  # the folder of config.json\n'
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


def _row(name: str, own: float | None, teacher: float | None, shown: Any) -> tuple[str, ...]:
    if own is None:
        return ()
    return name, shown(own), "" if teacher is None else shown(teacher)


def _number(value: float) -> str:
    return f"{value:.4f}"
