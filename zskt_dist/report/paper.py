"""The paper's own numbers: test accuracy in %, mean and standard deviation over three seeds."""

from typing import NamedTuple

from zskt_dist.config import Config
from zskt_dist.data.sources import KNOWN

Pair = tuple[str | None, str | None]
"""Architectures of teacher and student; None for a network that had none."""


class Reported(NamedTuple):
    """A number of the paper, with its deviation where one is given."""

    mean: float
    std: float | None = None


_TABLE_1 = {
    ("wrn-16-2", "wrn-16-1"): ((93.97, 0.11), (91.04, 0.04), (84.54, 0.21), (82.44, 0.21)),
    ("wrn-40-1", "wrn-16-1"): ((93.18, 0.08), (91.04, 0.04), (81.71, 0.25), (79.93, 1.11)),
    ("wrn-40-2", "wrn-16-1"): ((94.73, 0.02), (91.04, 0.04), (81.25, 0.67), (83.69, 0.58)),
    ("wrn-40-1", "wrn-16-2"): ((93.18, 0.08), (93.97, 0.11), (85.74, 0.47), (86.60, 0.56)),
    ("wrn-40-2", "wrn-16-2"): ((94.73, 0.02), (93.97, 0.11), (86.39, 0.33), (89.71, 0.10)),
    ("wrn-40-2", "wrn-40-1"): ((94.73, 0.02), (93.18, 0.08), (87.35, 0.12), (86.60, 1.79)),
}
_COLUMNS = ("teacher", "scratch", "distill", "train")
_FIGURE_2: dict[tuple[str, str], dict[int | None, float]] = {
    ("cifar10", "teacher"): {None: 95.13},
    ("cifar10", "scratch"): {10: 25.79, 25: 33.5, 50: 44.88, 75: 55.62, 100: 58.80, None: 91.55},
    ("cifar10", "distill"): {10: 40.32, 25: 57.0, 50: 68.0, 75: 72.0, 100: 76.0, None: 91.92},
    ("cifar10", "train"): {None: 83.69},
    ("cifar10", "finetune"): {10: 84.68, 25: 84.71, 50: 85.28, 75: 85.75, 100: 85.91},
    ("cifar10", "vid"): {100: 81.59},  # Ahn et al. 2019, as the paper quotes it
    ("svhn", "teacher"): {None: 96.50},
    ("svhn", "scratch"): {10: 10.88, 25: 19.71, 50: 54.83, 75: 64.26, 100: 73.18, None: 95.71},
    ("svhn", "distill"): {10: 24.57, 25: 40.25, 50: 54.03, 75: 69.69, 100: 77.72, None: 95.88},
    ("svhn", "train"): {None: 94.37},
    ("svhn", "finetune"): {10: 94.36, 25: 94.37, 50: 94.35, 75: 94.38, 100: 94.41},
}
_FIGURE_2_STD = {("cifar10", "train", None): 0.58, ("cifar10", "finetune", 100): 0.24, ("svhn", "distill", None): 0.15}
FIGURE_2_PAIR = ("wrn-40-2", "wrn-16-1")
FIGURE_2_IMAGES = (10, 25, 50, 75, 100)
_MTE = {("svhn", "train"): 0.09, ("svhn", "distill"): 0.64, ("cifar10", "train"): 0.22, ("cifar10", "distill"): 0.68}
CONFIDENCE = {"teacher": 0.8, "student": 0.3}
"""Mean top probability on pseudo-images during training (section 4.3)."""
ITERATIONS = {"cifar10": 80_000, "svhn": 50_000}


def configuration(dataset: str, pair: Pair) -> Config | None:
    """The paper's settings where it trained such a pair, or such a network alone; as the files in `configs/`.

    The schema's defaults are the authors' choices, so that little is left to say.
    """
    pairs = {"cifar10": tuple(_TABLE_1), "svhn": (FIGURE_2_PAIR,)}.get(dataset, ())
    if not any(all(mine in (None, theirs) for mine, theirs in zip(pair, known, strict=True)) for known in pairs):
        return None
    facts = KNOWN[dataset]
    config = Config(iterations=ITERATIONS[dataset])
    data = config.data.model_copy(update={"mean": facts.mean, "std": facts.std, "augment": facts.augmentation})
    return config.model_copy(update={"data": data})


def accuracy(method: str, dataset: str, pair: Pair, images_per_class: int | None) -> Reported | None:
    """The paper's accuracy of a method (`teacher`, `scratch`, `distill`, `train`, `finetune`), if it has one.

    Table 1 first, then the text, then Figure 2; where they have different numbers, see `figure_2`.
    """
    if dataset == "cifar10" and (method, images_per_class) in {("train", None), ("distill", 200)}:
        known = _TABLE_1.get((pair[0] or "", pair[1] or ""))
        return known and Reported(*known[_COLUMNS.index(method)])
    if dataset == "cifar10" and method in ("teacher", "scratch") and images_per_class is None:
        place = _COLUMNS.index(method)  # of its network in the pair, too
        found = (values for architectures, values in _TABLE_1.items() if architectures[place] == pair[place])
        return next((Reported(*values[place]) for values in found), None)
    if method == "train" and dataset == "svhn" and pair == FIGURE_2_PAIR:
        return Reported(94.06, 0.27)  # section 4.1
    return figure_2(method, dataset, pair, images_per_class)


def figure_2(method: str, dataset: str, pair: Pair, images_per_class: int | None) -> Reported | None:
    """What Figure 2 shows of a method, `vid` among them: its teachers are better than Table 1's of the same name."""
    if pair not in {FIGURE_2_PAIR, (FIGURE_2_PAIR[0], None), (None, FIGURE_2_PAIR[1])}:
        return None
    value = _FIGURE_2.get((dataset, method), {}).get(images_per_class)
    std = _FIGURE_2_STD.get((dataset, method, images_per_class))
    return None if value is None else Reported(value, std)


def transition_error(method: str, dataset: str, pair: Pair, images_per_class: int | None) -> Reported | None:
    """The paper's MTE of a method, with K = 100 and xi = 1.

    It does not say what M its KD+AT student has seen; M = 200, as in Table 1 and in both published reproductions.
    """
    if pair != FIGURE_2_PAIR or images_per_class != (200 if method == "distill" else None):
        return None
    value = _MTE.get((dataset, method))
    return None if value is None else Reported(value)
