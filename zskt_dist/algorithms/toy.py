"""The toy experiment of Figure 1 (section 3.3): three classes in a square, pseudo points instead of a generator.

Shapes: N points of the data, P pseudo points, G x G cells of a decision map; all points are in [-3, 3]^2.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from zskt_dist.algorithms.losses import belief_gap

SIDE = 3.0
GAP = belief_gap("forward_kl", reduction="batchmean")
_CENTRES = (-1.6, 0.0, 1.6)
_HOLES = (0.9, -0.9, 0.9)


@dataclass(frozen=True)
class ToySettings:
    """Sizes and rates; the defaults end in seconds, `AUTHORS` are the authors'."""

    rounds: int = 300
    points: int = 100
    point_steps: int = 20
    student_steps: int = 10
    points_learning_rate: float = 0.03
    student_learning_rate: float = 1e-3
    clip_norm: float = 3.0


AUTHORS = ToySettings(rounds=2000, points=50, point_steps=50, points_learning_rate=1e-3)


@dataclass(frozen=True)
class Snapshot:
    """The state after a round."""

    round: int
    points: Tensor
    """[P, 2]"""
    student_map: Tensor
    """Predicted class of every cell, int64 [G, G]"""
    agreement: float
    """Fraction of cells in which the student predicts the teacher's class"""


def toy_data(generator: torch.Generator, per_class: int = 300) -> tuple[Tensor, Tensor]:
    """Three long Gaussians, each with a hole in which another class sits: points [N, 2] and labels [N]."""
    points, labels = [], []
    for label, (centre, hole) in enumerate(zip(_CENTRES, _HOLES, strict=True)):
        pocket = torch.tensor([centre, hole])
        band = torch.randn(3 * per_class, 2, generator=generator) * torch.tensor([0.35, 1.3]) + torch.tensor(
            [centre, 0.0]
        )
        band = band[(band - pocket).norm(dim=1) > 0.45][:per_class]
        inside = torch.randn(per_class // 5, 2, generator=generator) * 0.14 + pocket
        points += [band, inside]
        labels += [torch.full((len(band),), label), torch.full((len(inside),), (label + 1) % 3)]
    return torch.cat(points).clamp(-SIDE, SIDE), torch.cat(labels)


def toy_network() -> nn.Module:
    """MLP 2-100-500-3."""
    return nn.Sequential(nn.Linear(2, 100), nn.ReLU(), nn.Linear(100, 500), nn.ReLU(), nn.Linear(500, 3))


def train_teacher(x: Tensor, label: Tensor, steps: int = 1000) -> nn.Module:
    """Cross entropy on all points at once; returns the network frozen."""
    teacher = toy_network()
    optimizer = torch.optim.Adam(teacher.parameters(), 1e-3, fused=True)
    for _ in range(steps):
        loss = functional.cross_entropy(teacher(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher.requires_grad_(False)


def toy_transfer(
    teacher: nn.Module, settings: ToySettings, generator: torch.Generator, shown: Callable[[int], bool]
) -> Iterator[Snapshot]:
    """Zero-shot transfer with learnt pseudo points; yields the state before the first round and after `shown` ones."""
    student = toy_network()
    raw = torch.randn(settings.points, 2, generator=generator) + 3  # squashed into the square, far from the data
    raw.requires_grad_()
    seek = torch.optim.Adam([raw], settings.points_learning_rate, fused=True)
    learn = torch.optim.Adam(student.parameters(), settings.student_learning_rate, fused=True)
    target_map = decision_map(teacher)
    yield _snapshot(0, raw, student, target_map)
    for number in range(1, settings.rounds + 1):
        # Points: seek places where the student disagrees with the teacher.
        student.requires_grad_(False)
        for _ in range(settings.point_steps):
            x = squash(raw)
            _step(seek, -GAP(student(x), teacher(x)), [raw], settings.clip_norm)
        # Student: match the teacher there.
        student.requires_grad_(True)
        x = squash(raw).detach()
        belief = teacher(x)
        for _ in range(settings.student_steps):
            _step(learn, GAP(student(x), belief), list(student.parameters()), settings.clip_norm)
        if shown(number):
            yield _snapshot(number, raw, student, target_map)


def squash(raw: Tensor) -> Tensor:
    """Any numbers to (-3, 3)."""
    return 2 * SIDE * torch.sigmoid(raw) - SIDE


@torch.no_grad()
def decision_map(network: nn.Module, cells: int = 200) -> Tensor:
    """Predicted class on a grid over the square, int64 [G, G]; rows go from bottom to top."""
    axis = torch.linspace(-SIDE, SIDE, cells)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return network(torch.stack([x.flatten(), y.flatten()], dim=1)).argmax(dim=1).view(cells, cells)


def _snapshot(number: int, raw: Tensor, student: nn.Module, target_map: Tensor) -> Snapshot:
    student_map = decision_map(student, len(target_map))
    agreement = (student_map == target_map).double().mean().item()
    return Snapshot(number, squash(raw).detach(), student_map, agreement)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[Tensor], clip_norm: float) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()
