"""Algorithm 1 as a plain loop without engines, written from the paper, over networks of a few hundred parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.nets import TinyClassifier, TinyGenerator
from zskt_dist.algorithms.belief_matching import BeliefMatching
from zskt_dist.algorithms.losses import belief_gap
from zskt_dist.engine import DDPEngine
from zskt_dist.models import TappedNetwork

N_G, N_S, N, BATCH, BETA = 2, 3, 3, 4, 7.0
TEMPERATURE = 1.7

Metrics = dict[str, Tensor]
Networks = tuple[TinyClassifier, TinyClassifier, TinyGenerator]


def cosine(iteration: int) -> float:
    return (1 + math.cos(math.pi * iteration / N)) / 2


def networks(*, norm: bool = False) -> Networks:
    """Teacher, student, generator in double precision; without batch norm nothing but Algorithm 1 is in them."""
    torch.manual_seed(4)
    teacher = TinyClassifier(6, norm=norm).double().eval().requires_grad_(False)
    return teacher, TinyClassifier(3, norm=norm).double(), TinyGenerator(norm=norm).double()


def noise(iteration: int, draw: int, count: int = BATCH) -> Tensor:
    random = torch.Generator().manual_seed(100 * iteration + draw)
    return torch.randn(count, 5, generator=random, dtype=torch.float64)


def transfer(
    teacher: nn.Module, student: nn.Module, generator: nn.Module, *, clip_norm: float = 0.05, **settings: Any
) -> BeliefMatching:
    """What is tested, over these networks."""
    engines = [
        DDPEngine(network, torch.optim.Adam(network.parameters(), lr=rate), cosine, clip_norm=clip_norm)
        for network, rate in ((generator, 1e-3), (TappedNetwork(student, TinyClassifier.attention_layers), 2e-3))
    ]
    chosen = {"gap": belief_gap(), "beta": BETA, "generator_steps": N_G, "student_steps": N_S} | settings
    return BeliefMatching(*engines, TappedNetwork(teacher, TinyClassifier.attention_layers), **chosen)


def _asked(network: TinyClassifier, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and attention maps, by walking through the network."""
    first = network.act1(network.norm(network.conv1(x)))
    second = network.act2(network.conv2(first))
    maps = [functional.normalize(a.pow(2).mean(1).flatten(1)) for a in (first, second)]
    return network.fc(second.flatten(1)), maps


@dataclass
class PlainLoop:
    """Images anew at every student step, gradients through everything; micro-batches one after the other."""

    teacher: TinyClassifier
    student: TinyClassifier
    generator: TinyGenerator
    mode: str = "post_update"
    divergence: str = "forward_kl"
    reduction: str = "mean"
    attention: str = "squared_mean"
    clip_norm: float = 0.05
    sizes: Sequence[int] = (BATCH,)
    """Images in each micro-batch."""

    def run(self) -> list[Metrics]:
        """All iterations; what is to be reported for each of them."""
        self._optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=1e-3),
            "student": torch.optim.Adam(self.student.parameters(), lr=2e-3),
        }
        return [self._iteration(iteration) for iteration in range(N)]

    def _iteration(self, iteration: int) -> Metrics:
        for optimizer, rate in zip(self._optimizers.values(), (1e-3, 2e-3), strict=True):
            optimizer.param_groups[0]["lr"] = rate * cosine(iteration)
        z = self._noise(iteration, 0)
        for _ in range(N_G):
            report, images = self._generator_step(z)
        for step in range(N_S):
            if self.mode == "post_update":
                images = [self.generator(part) for part in z]
            elif self.mode == "fresh":
                images = [self.generator(part) for part in self._noise(iteration, 1 + step)]
            of_student = self._student_step([x.detach() for x in images])
        return report | of_student

    def _generator_step(self, z: Sequence[Tensor]) -> tuple[Metrics, list[Tensor]]:
        images, total = [], torch.zeros(())
        for part in z:
            x = self.generator(part)
            loss = -self._belief_gap(_asked(self.student, x)[0], _asked(self.teacher, x)[0])
            total = total + len(part) / sum(self.sizes) * loss
            images.append(x)
        norm = self._step("generator", total)
        return {"generator_loss": total.detach(), "generator_gradient_norm": norm}, images

    def _student_step(self, images: Sequence[Tensor]) -> Metrics:
        kl = distance = torch.zeros(())
        guesses, beliefs = [], []
        for x in images:
            share = len(x) / sum(self.sizes)
            (logits, maps), (target, target_maps) = _asked(self.student, x), _asked(self.teacher, x)
            kl = kl + share * self._belief_gap(logits, target)
            for a, b in zip(maps, target_maps, strict=True):
                squares = (a - b).pow(2)
                mean = squares.mean() if self.attention == "squared_mean" else squares.sum(1).sqrt().mean()
                distance = distance + share * mean
            guesses.append(logits.detach())
            beliefs.append(target)
        norm = self._step("student", kl + BETA * distance)
        report = {"kl": kl.detach(), "attention": distance.detach(), "student_gradient_norm": norm}
        for who, parts in (("teacher", beliefs), ("student", guesses)):
            logits = torch.cat(parts)
            report[f"{who}_confidence"] = functional.softmax(logits, 1).amax(1).mean()
            report[f"{who}_classes"] = functional.one_hot(logits.argmax(1), 3).double().mean(0)
        return report

    def _step(self, who: str, loss: Tensor) -> Tensor:
        for optimizer in self._optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(getattr(self, who).parameters(), self.clip_norm)
        self._optimizers[who].step()
        return norm

    def _noise(self, iteration: int, draw: int) -> Sequence[Tensor]:
        return noise(iteration, draw, sum(self.sizes)).split(list(self.sizes))

    def _belief_gap(self, student: Tensor, teacher: Tensor) -> Tensor:
        s, t = (functional.softmax(logits / TEMPERATURE, 1) for logits in (student, teacher))
        m = (s + t) / 2
        total = {
            "forward_kl": functional.kl_div(s.log(), t, reduction="sum"),
            "reverse_kl": functional.kl_div(t.log(), s, reduction="sum"),
            "jensen_shannon": (functional.kl_div(m.log(), t, reduction="sum") + (s * (s / m).log()).sum()) / 2,
        }[self.divergence]
        return total / len(s) if self.reduction == "batchmean" else total / s.numel()
