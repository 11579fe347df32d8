"""An iteration in the schedule of the authors' code, written anew from the notes on it: what ours is compared with.

The arithmetic is that of `zskt_dist` in `post_update` mode. What differs is how much of it is done, and how: images are
generated again for every student step and gradients computed back to the noise, the teacher's and the student's
parameters get gradients that nobody uses, Adam walks through the parameters one by one, and every loss and confidence
is read by the host as soon as it is there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from zskt_dist.algorithms.losses import attention_gap, attention_map, belief_gap
from zskt_dist.models import TappedNetwork


class AuthorsSchedule:
    """One generator step and `student_steps` student steps on each z.

    Args:
        teacher: In eval mode; its parameters take gradients.
    """

    def __init__(
        self,
        generator: nn.Module,
        student: nn.Module,
        teacher: nn.Module,
        layers: Sequence[str] = ("group1", "group2", "group3"),
        *,
        student_steps: int = 10,
        beta: float = 250.0,
        clip_norm: float = 5.0,
        iterations: int = 80_000,
    ) -> None:
        self.generator = generator
        self.student, self.teacher = TappedNetwork(student, layers), TappedNetwork(teacher, layers)
        self.gap, self.student_steps, self.beta, self.clip_norm = belief_gap(), student_steps, beta, clip_norm
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=rate, foreach=False, fused=False)
            for network, rate in ((generator, 1e-3), (self.student, 2e-3))
        ]
        self.schedulers = [
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations) for optimizer in self.optimizers
        ]
        self.read: list[float] = []

    def step(self, z: Tensor) -> None:
        """z: [B, z_dim]."""
        self.read.clear()
        x = self.generator(z)
        guess, belief = self.student(x), self.teacher(x)
        self._update(0, self.generator, -self.gap(guess.logits, belief.logits))
        self._look(guess.logits, belief.logits)

        for step in range(self.student_steps):
            x = self.generator(z)
            if step == 0:
                with torch.no_grad():
                    belief = self.teacher(x)
                    maps = [attention_map(activation) for activation in belief.activations]
            guess = self.student(x)
            attention = attention_gap(guess.activations, maps)
            self._update(1, self.student, self.gap(guess.logits, belief.logits) + self.beta * attention)
            self._look(guess.logits, belief.logits)
        for scheduler in self.schedulers:
            scheduler.step()

    def _update(self, which: int, network: nn.Module, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        clip_grad_norm_(network.parameters(), self.clip_norm, foreach=False)
        self.optimizers[which].step()
        self.read.append(loss.item())

    def _look(self, *logits: Tensor) -> None:
        self.read += [torch.softmax(each, dim=1).max(dim=1).values.mean().item() for each in logits]
