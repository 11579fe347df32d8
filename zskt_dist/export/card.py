"""A Hugging Face model card of what has been exported; imports huggingface_hub late."""

from pathlib import Path
from typing import Any

from zskt_dist.export import card_text, quality
from zskt_dist.export.exported_network import Subject
from zskt_dist.export.tables import earlier_files, files_table, networks_table, percent, thread_count
from zskt_dist.files import write_atomic

Record = dict[str, Any]
_NOTHING_MEASURED = "Nothing: there were no labelled test images."
_NOTHING_ESTIMATED = "Nothing was estimated."
_FLAG = (
    "**Estimates, not measurements.** No real image and no label went into these numbers; they say how alike student "
    "and teacher are on images that are not real. Near the agreement by chance, agreement means nothing."
)


def write_card(subject: Subject, record: Record, path: Path) -> None:
    """Writes the card.

    Args:
        record: The content of `export.json`: what has been exported, with sizes and latencies.
    """
    from huggingface_hub import ModelCard

    result = subject.result
    card = ModelCard.from_template(
        _metadata(subject),
        template_path=str(Path(__file__).with_name("card.md")),
        title=_name(subject),
        summary=card_text.summary(subject),
        facts=markdown(("", ""), _facts(subject, record)),
        training=card_text.training(subject),
        settings=markdown(("setting", "value"), card_text.settings(subject)),
        data=card_text.data_used(subject),
        measured=markdown(*quality.measured_table(subject)) or _NOTHING_MEASURED,
        estimated=_estimated(subject),
        limits=card_text.limits(subject),
        input=card_text.input_of(subject, record),
        examples=card_text.examples(record),
        networks=markdown(*networks_table(record)),
        files=markdown(*files_table(record)),
        threads=thread_count(record["threads"]),
        batch_sizes=", ".join(map(str, record["check"]["batch_sizes"])),
        large=f"{record['check']['large']:g}",
        tolerance=f"{record['tolerance']:g}",
        agreement=card_text.int8_agreement(record),
        earlier="; ".join(earlier_files(record)),
        citation=card_text.CITATION,
        run=f"{result['experiment']}/{result['name']}",
        sha256=subject.sha256,
    )
    write_atomic(path, str(card))


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table; empty without rows."""
    lines = [header, ("---",) * len(header), *rows] if rows else []
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _estimated(subject: Subject) -> str:
    estimates = subject.result.get("estimates") if subject.role == "student" else None
    if not estimates:
        return _NOTHING_ESTIMATED
    parts = [_FLAG, markdown(*quality.estimates_table(estimates))]
    if (score := estimates.get("label_free_score")) is not None:
        parts.append(f"Label-free score, the mean agreement over generators and normal noise: {percent(score)}.")
    return "\n\n".join(part for part in parts if part)


def _facts(subject: Subject, record: Record) -> list[tuple[str, ...]]:
    own = record["networks"][subject.role]
    facts: list[tuple[str, ...]] = [
        ("architecture", f"`{subject.arch}`, {own['parameters']:,} parameters"),
        ("input", f"float32 `[B, {', '.join(map(str, subject.image_shape))}]`"),
        ("output", f"logits of {subject.num_classes} classes"),
    ]
    if subject.class_names:
        facts.append(("classes", ", ".join(subject.class_names)))
    if subject.role == "student" and (teacher := card_text.teacher_of(subject)):
        size, identity = teacher.get("params"), teacher.get("sha256")
        told = f"{size:,} parameters" if size else f"weights with SHA-256 `{identity}`"
        facts.append(("teacher", f"`{teacher['arch']}`, {told}"))
    return facts


def _metadata(subject: Subject) -> Any:
    """The front matter: Hugging Face's own keys, and the measured accuracy where there is one."""
    from huggingface_hub import EvalResult, ModelCardData

    about = {"task_type": "image-classification", "metric_type": "accuracy", "dataset_split": "test"}
    scores = [
        EvalResult(**about, dataset_type=dataset, dataset_name=dataset, metric_value=round(accuracy, 4))
        for dataset, accuracy in quality.accuracies(subject).items()
    ]
    return ModelCardData(
        library_name="zskt_dist",
        pipeline_tag="image-classification",
        tags=card_text.tags(subject) or None,
        model_name=_name(subject),
        metrics=["accuracy"] if scores else None,
        eval_results=scores or None,
    )


def _name(subject: Subject) -> str:
    return f"{subject.result['experiment']}-{subject.role}"
