"""The toy experiment of Figure 1 (section 3.3): three classes in a square, pseudo points instead of a generator.

Shapes: N points of the data, P pseudo points, G x G cells of a decision map; all points are in [-3, 3]^2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    """Sizes and rates; the defaults take seconds; `AUTHORS` has those of the authors."""

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


class ToyTransfer:
    """Zero-shot transfer with learnt pseudo points, one round at a time.

    Args:
        generator: Random generator for the first pseudo points; the student's initialisation uses torch's own.

    Attributes:
        round: Number of rounds done.
    """

    def __init__(self, teacher: nn.Module, settings: ToySettings, generator: torch.Generator) -> None:
        self.teacher, self.settings, self.round = teacher, settings, 0
        self.student = toy_network()
        raw = torch.randn(settings.points, 2, generator=generator) + 3  # squashed into the square, far from the data
        self.raw = raw.requires_grad_()
        self.seek = torch.optim.Adam([self.raw], settings.points_learning_rate, fused=True)
        self.learn = torch.optim.Adam(self.student.parameters(), settings.student_learning_rate, fused=True)
        self.target_map = decision_map(teacher)

    def step(self) -> None:
        """One round."""
        # Points: seek places where the student disagrees with the teacher.
        self.student.requires_grad_(False)
        for _ in range(self.settings.point_steps):
            x = squash(self.raw)
            _step(self.seek, -GAP(self.student(x), self.teacher(x)), [self.raw], self.settings.clip_norm)
        # Student: match the teacher there.
        self.student.requires_grad_(True)
        x = squash(self.raw).detach()
        belief = self.teacher(x)
        for _ in range(self.settings.student_steps):
            _step(self.learn, GAP(self.student(x), belief), list(self.student.parameters()), self.settings.clip_norm)
        self.round += 1

    def snapshot(self) -> Snapshot:
        student_map = decision_map(self.student, len(self.target_map))
        agreement = (student_map == self.target_map).double().mean().item()
        return Snapshot(self.round, squash(self.raw).detach(), student_map, agreement)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next round depends on, except the teacher."""
        return {
            "round": self.round,
            "raw": self.raw.detach(),
            "student": self.student.state_dict(),
            "seek": self.seek.state_dict(),
            "learn": self.learn.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.round = state["round"]
        with torch.no_grad():
            self.raw.copy_(state["raw"])
        self.student.load_state_dict(state["student"])
        self.seek.load_state_dict(state["seek"])
        self.learn.load_state_dict(state["learn"])


def squash(raw: Tensor) -> Tensor:
    """Maps any numbers to (-3, 3)."""
    return 2 * SIDE * torch.sigmoid(raw) - SIDE


@torch.no_grad()
def decision_map(network: nn.Module, cells: int = 200) -> Tensor:
    """Predicted class on a grid over the square, int64 [G, G]; rows go from bottom to top."""
    axis = torch.linspace(-SIDE, SIDE, cells)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return network(torch.stack([x.flatten(), y.flatten()], dim=1)).argmax(dim=1).view(cells, cells)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[Tensor], clip_norm: float) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()
