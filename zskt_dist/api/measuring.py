"""Measuring networks on the caller's own images."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from zskt_dist.algorithms.transitions import transition_curves
from zskt_dist.api.networks import answer_of, check_network, frozen_view, read_answers
from zskt_dist.api.results import Evaluation, TransitionError
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.evaluation.curve_summary import CurveSummary
from zskt_dist.evaluation.scorer import Score, Scorer
from zskt_dist.models import device_of


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images_or_loader: Tensor | Iterable[Any],
    labels: Tensor | None = None,
    teacher: nn.Module | None = None,
    *,
    batch_size: int = 512,
) -> Evaluation:
    """Accuracy and calibration of a network on labelled images, and its agreement with a teacher.

    The networks are evaluated on the device of `network`, in eval mode, and are not changed.

    Args:
        network: Images [B, C, H, W] to logits [B, classes], or to something that holds them, as for `transfer`. Where
            several parts may be the logits, the teacher or the largest of the labels says how many classes there are.
            Of probabilities the logarithms are taken, with a warning.
        images_or_loader: Normalised images, float [N, C, H, W], or an iterable (a DataLoader) of such batches or of
            pairs (images, labels).
        labels: Classes, integers [N], for a tensor of images; None: nothing that needs labels is measured.
        teacher: Network to compare with; None: nothing is compared.
        batch_size: Images per forward pass, where a tensor is given.

    Raises:
        UserError: there are no images, labels do not fit, a size is below 1, or a network returns no logits.

    Examples:
        >>> import torch, zskt_dist
        >>> network = torch.nn.Flatten()  # its logits are the pixels
        >>> images = torch.tensor([[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]]).view(3, 1, 1, 2)
        >>> scores = zskt_dist.evaluate(network, images, torch.tensor([1, 0, 0]), teacher=network)
        >>> scores.images, round(scores.accuracy, 3), scores.agreement, scores.confusion
        (3, 0.667, 1.0, [[1, 1], [0, 1]])
    """
    _check_sizes(batch_size=batch_size)
    check_network("network", network, scripted=True)
    device = device_of(network)
    networks = {"network": frozen_view("network", network)}
    if teacher is not None:
        check_network("teacher", teacher, scripted=True)
        networks["teacher"] = frozen_view("teacher", teacher, device)
    scorers: dict[str, Scorer] = {}
    labelled = None
    for x, truth in _batches(images_or_loader, labels, batch_size):
        if labelled not in (None, truth is not None):
            raise UserError("some batches have labels and others have none")
        labelled = truth is not None
        if not len(x):
            continue
        if not scorers:
            read_answers(networks, x, truth if labels is None else labels)
        logits = {role: answer_of(role, each, x.to(device)) for role, each in networks.items()}
        own, classes = logits["network"], logits["network"].shape[1]
        truth = None if truth is None else _whole(truth.to(device), len(own), classes)
        scorers = scorers or {name: Scorer(World(device), classes) for name in ("network", "teacher", "agreement")}
        scorers["network"].add(own, own if truth is None else truth)
        if "teacher" in logits:
            if logits["teacher"].shape != own.shape:
                shapes = f"{classes} and {logits['teacher'].shape[1]}"
                raise UserError(f"network and teacher have different numbers of classes: {shapes}")
            scorers["agreement"].add(own, logits["teacher"])
            scorers["teacher"].add(logits["teacher"], own if truth is None else truth)
    scores = {name: scorer.score() for name, scorer in scorers.items()}
    if not scores or not scores["network"].images:
        raise UserError("there are no images to evaluate on")
    return _evaluation(scores, with_labels=bool(labelled), with_teacher=teacher is not None)


def _evaluation(scores: dict[str, Score], *, with_labels: bool, with_teacher: bool) -> Evaluation:
    network, agreement = scores["network"], scores["agreement"]
    return Evaluation(
        images=network.images,
        accuracy=network.accuracy if with_labels else None,
        agreement=agreement.accuracy if with_teacher else None,
        teacher_accuracy=scores["teacher"].accuracy if with_labels and with_teacher else None,
        kl=agreement.kl if with_teacher else None,
        confidence=network.confidence,
        calibration_error=network.calibration.ece if with_labels else None,
        confusion=network.confusion.tolist() if with_labels and network.confusion is not None else None,
    )


@torch.enable_grad()
def mean_transition_error(
    network_a: nn.Module,
    network_b: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 100,
    step_size: float = 1.0,
    rows: int = 128,
) -> TransitionError:
    """How much the decision boundaries of two networks differ around images (Algorithm 2 and Eq. 2 of the paper).

    Each image on which both predict the same class is moved towards every other class by gradient steps on A, and the
    beliefs of both networks in that class are compared on the way. The value depends on `steps`, `step_size` and the
    images: compare only values with the same three. Computed on the device of A; the networks are not changed.

    Args:
        network_a: A, whose boundaries are crossed, the student in the paper; a network as for `transfer`.
        network_b: B, which is only evaluated.
        images: Normalised images, float [N, C, H, W].
        labels: Classes, integers [N], which are not targets (authors' code); None: the classes that both
            predict are not targets (paper).
        steps: K, values of each curve.
        step_size: xi, in normalised input units.
        rows: Images x target classes per forward pass; fewer need less memory.

    Raises:
        UserError: the networks agree on none of the images or do not return logits of the same classes, labels do not
            fit, or a size is below 1.

    Examples:
        >>> import torch, zskt_dist
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        >>> images = torch.rand(5, 1, 2, 2)
        >>> error = zskt_dist.mean_transition_error(network, network, images, steps=10)
        >>> error.value, error.images, len(error.p_a)
        (0.0, 5, 10)
    """
    _check_sizes(steps=steps, rows=rows)
    for role, network in (("network_a", network_a), ("network_b", network_b)):
        check_network(role, network, scripted=True)
    device = device_of(network_a)
    a, b = frozen_view("network_a", network_a), frozen_view("network_b", network_b, device)
    for first, _ in islice(_batches(images, labels, rows), 1):
        read_answers({"network_a": a, "network_b": b}, first, labels)
    x, origin, classes = _agreed(a, b, images, labels, rows)
    each = max(1, rows // (classes - 1))
    summary = CurveSummary(steps)
    for start in range(0, len(x), each):
        part = slice(start, start + each)
        curves = transition_curves(
            a, b, x[part].to(device), origin[part], num_classes=classes, steps=steps, step_size=step_size, rows=rows
        )
        summary.add_curves(curves.p_a, curves.p_b)
    assert summary.mte is not None, "there are images on which both agree"
    means = summary.mean_curves()
    return TransitionError(value=summary.mte, images=len(x), p_a=means["p_a"], p_b=means["p_b"])


@torch.no_grad()
def _agreed(
    a: nn.Module, b: nn.Module, images: Tensor, labels: Tensor | None, batch_size: int
) -> tuple[Tensor, Tensor, int]:
    """The images on which both agree, the class of each that is not a target, and the number of classes."""
    device = device_of(a)
    chosen, origins, classes = [], [], 0
    for x, truth in _batches(images, labels, batch_size):
        of_a, of_b = (answer_of(name, each, x.to(device)) for name, each in (("network_a", a), ("network_b", b)))
        classes = of_a.shape[1]
        if of_b.shape[1] != classes or classes < 2:
            raise UserError(f"the networks need the same two or more classes, they have {classes} and {of_b.shape[1]}")
        predicted = of_a.argmax(dim=1)
        agreed = predicted == of_b.argmax(dim=1)
        origin = predicted if truth is None else _whole(truth.to(device), len(x), classes)
        chosen.append(x[agreed.to(x.device)])
        origins.append(origin[agreed])
    if not sum(map(len, chosen)):
        raise UserError(f"the networks agree on none of the {len(images)} images, so nothing can be compared")
    return torch.cat(chosen), torch.cat(origins), classes


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(name, size, "expected at least 1")


def _whole(labels: Tensor, images: int, classes: int) -> Tensor:
    """Labels as int64: smaller integers would wrap where cells of a confusion are counted."""
    if labels.shape != (images,):
        remedy = "labels.argmax(dim=1) is that of one-hot labels" if labels.shape == (images, classes) else "give [N]"
        raise UserError(f"labels are {list(labels.shape)}, where each of {images} images has one class; {remedy}")
    if labels.is_floating_point():
        raise UserError(f"labels are {str(labels.dtype).removeprefix('torch.')}; give integers, as labels.long() does")
    labels = labels.long()
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        found = f"from {labels.min()} to {labels.max()}"
        raise UserError(f"labels are {found}, and {classes} classes are numbered from 0 to {classes - 1}")
    return labels


def _batches(
    images: Tensor | Iterable[Any], labels: Tensor | None, batch_size: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yields images with their labels, if there are any."""
    if labels is not None and not isinstance(labels, Tensor):
        raise UserError(f"labels are {type(labels).__name__}; expected a tensor of integers [N]")
    if isinstance(images, Tensor):
        if labels is not None and len(labels) != len(images):
            raise UserError(f"there are {len(images)} images and {len(labels)} labels")
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield images[part], None if labels is None else labels[part]
        return
    if labels is not None:
        raise UserError("labels belong to a tensor of images; a loader gives pairs (images, labels)")
    if not isinstance(images, Iterable) or isinstance(images, str):
        kind = type(images).__name__
        raise UserError(f"images are {kind}; expected a tensor [N, C, H, W], or a loader of such batches")
    for batch in images:
        x, truth = (batch, None) if isinstance(batch, Tensor) else _pair(batch)
        yield x, truth


def _pair(batch: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(batch, tuple | list) and batch and all(isinstance(part, Tensor) for part in batch[:2]):
        return batch[0], batch[1] if len(batch) > 1 else None
    raise UserError(f"the loader gives {type(batch).__name__}; expected images, or pairs (images, labels) of tensors")
