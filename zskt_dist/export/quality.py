"""How good a network is, measured on test images and estimated without labels, as rows of texts for the model card."""

from collections.abc import Callable
from typing import Any

from zskt_dist.evaluation.measured import Measured
from zskt_dist.evaluation.measured import measured as of_run
from zskt_dist.export.exported_network import ExportedNetwork
from zskt_dist.export.tables import Table, percent
from zskt_dist.markup import plain

Record = dict[str, Any]
Metric = tuple[str, dict[str, float | None], Callable[[float], str]]
"""Name, values by role, and how one is written."""

_SOURCES = {
    "yardstick": "the yardstick, images made once from the teacher alone",
    "held_out": "pseudo-images of the generator at several moments of the run",
    "noise": "standard normal noise",
    "uniform_noise": "noise of uniform pixels",
}


def measured(exported: ExportedNetwork) -> list[Measured]:
    """Data sets, and what was measured of the network on their test images."""
    return of_run(exported.directory, exported.result, exported.role, exported.sha256)


def accuracies(exported: ExportedNetwork) -> dict[str, float]:
    """On test images, by data set."""
    name = "accuracy" if exported.role == "student" else "teacher_accuracy"
    return {dataset: answer[name] for dataset, answer, _ in measured(exported) if answer.get(name) is not None}


def measured_table(exported: ExportedNetwork) -> Table:
    """Metrics of this network, and of its teacher where there are any; on real test images."""
    rows = []
    for dataset, answer, _ in measured(exported):
        for metric, values, shown in _metrics(answer):
            own, teacher = values.get(exported.role), values.get("teacher")
            if own is not None:
                rows.append((f"{plain(dataset)}: {metric}", shown(own), "" if teacher is None else shown(teacher)))
    header = ("on test images", exported.role, "teacher")
    width = 3 if exported.role == "student" and any(row[2] for row in rows) else 2
    return header[:width], list(dict.fromkeys(row[:width] for row in rows))  # evaluations may differ in their MTE only


def estimates_table(estimates: Record) -> Table:
    """For each source of images that are not real, how alike student and teacher are there."""
    rows: list[tuple[str, ...]] = []
    for name, entry in estimates.get("sources", {}).items():
        share, low, high, chance = (
            percent(entry[each]) for each in ("agreement", "agreement_low", "agreement_high", "chance_agreement")
        )
        shown = _SOURCES.get(name, name)
        rows.append((shown, f"{entry['images']:,}", f"{share} ({low} to {high})", chance, f"{entry['kl_50']:.4f}"))
    return ("estimated on", "images", "agreement (95 % interval)", "agreement by chance", "median KL, nats"), rows


def _metrics(answer: Record) -> list[Metric]:
    errors = {who: values["ece"] for who, values in answer.get("calibration", {}).items()}
    found: list[Metric] = [
        ("accuracy", {"student": answer.get("accuracy"), "teacher": answer.get("teacher_accuracy")}, percent),
        ("agreement, same class as the teacher", {"student": answer.get("agreement")}, percent),
        ("expected calibration error (ECE)", errors, _number),
    ]
    if mte := answer.get("mte"):
        how = f"K = {mte['steps']}, step {mte['step_size']:g}, {mte['images']:g} images"
        found.append((f"mean transition error (MTE; {how})", {"student": mte["value"]}, _number))
    return found


def _number(value: float) -> str:
    return f"{value:.4f}"
