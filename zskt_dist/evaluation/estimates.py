"""All numbers about a student that need no labels and no real images, written as `estimates.json`.

`HeldOut.judge` sums up the same images in four numbers for selection.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zskt_dist.algorithms.estimates import BINS, compare, describe, together
from zskt_dist.config import Config
from zskt_dist.distributed.batch_norm import averaged_statistics
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.image_sources import ImageSource, answers
from zskt_dist.runs.result import YardstickResult

MEANING = (
    "Agreement of the student with its teacher on images that are not real: it says how alike the two are there, "
    "not how often either is right, and neither labels nor real images were used."
)
YARDSTICK = "yardstick"
"""Name of the source whose images a teacher has once and for all (`evaluation.yardstick`)."""
Answer = dict[str, Any]
_ONE_CLASS = 0.1
"""Entropy of predicted classes in nats, below which there is one in truth."""


@torch.no_grad()
def estimate(
    config: Config, student: nn.Module, teacher: nn.Module, sources: Sequence[ImageSource], world: World
) -> Answer | None:
    """How alike student and teacher are on `evaluation.held_out_images` images of every source.

    All workers call it together, and each takes its share of the images.

    Args:
        student: [B, C, H, W] to logits, judged in eval mode with the workers' average statistics.
        teacher: [B, C, H, W] to logits, frozen and in eval mode.

    Returns:
        The content of `estimates.json`; with `evaluation.held_out_images=0` on the yardstick alone; None without both.
    """
    if config.evaluation.held_out_images == 0:
        sources = [source for source in sources if source.fixed]
    if not sources:
        return None
    found, num_classes = {}, 0
    with averaged_statistics(student, world):
        for source, logits in answers(config, sources, world, student, teacher):
            parts = []
            for of_student, of_teacher in logits:
                num_classes = of_teacher.shape[1]
                parts.append(compare(of_student, of_teacher))
            found[source.name] = together(world.gather(together(parts).cpu()))
    described = {
        source.name: {"iteration": source.iteration, **describe(found[source.name], num_classes)} for source in sources
    }
    pseudo = [found[source.name] for source in sources if source.iteration is not None]
    return {
        "estimate": True,
        "meaning": MEANING,
        "seed": config.seed,
        "num_classes": num_classes,
        "confidence_bins": BINS,
        "held_out": describe(together(pseudo), num_classes) if pseudo else None,
        "sources": described,
    }


def brief(answer: Answer) -> dict[str, dict[str, float]]:
    """The numbers of an answer that `result.json` holds: yardstick, all generators together, each kind of noise."""
    whole = {"held_out": answer["held_out"]} if answer["held_out"] else {}
    others = {name: entry for name, entry in answer["sources"].items() if entry["iteration"] is None}
    first = {name: others[name] for name in others if name == YARDSTICK}
    return {name: _brief(entry) for name, entry in (first | whole | others).items()}


def collapse(answer: Answer) -> str | None:
    """Why agreement means nothing here, on the yardstick or else on all sources; None where it means something."""
    sources = answer["sources"]
    entries = [sources[YARDSTICK]] if YARDSTICK in sources else list(sources.values())
    for role in ("teacher", "student"):
        if all(entry[role]["class_entropy"] < _ONE_CLASS for entry in entries):
            return f"the {role} puts nearly all made images into one class, so agreement on them says little"
    if all(entry["agreement_low"] <= entry["chance_agreement"] for entry in entries):
        agreement, chance = entries[0]["agreement"], entries[0]["chance_agreement"]
        return f"student and teacher agree no more often than by chance: {agreement:.1%}, by chance {chance:.1%}"
    return None


def headline(answer: Answer, sha256: str) -> YardstickResult | None:
    """Agreement on the yardstick with its 95 % interval; None without a yardstick.

    Args:
        sha256: SHA-256 of the yardstick's pixels, hex.
    """
    entry = answer["sources"].get(YARDSTICK)
    if entry is None:
        return None
    return {
        "agreement": entry["agreement"],
        "low": entry["agreement_low"],
        "high": entry["agreement_high"],
        "images": entry["images"],
        "sha256": sha256,
    }


def _brief(entry: Answer) -> dict[str, float]:
    names = ("images", "agreement", "agreement_low", "agreement_high", "chance_agreement")
    kl = {f"kl_{point}": entry["kl_quantiles"][point] for point in ("5", "50", "95")}
    return {name: entry[name] for name in names} | kl | {"teacher_classes": entry["teacher"]["classes"]}
