"""Teachers and students as people bring them: what is unusual about each is in its name."""

import torch
from torch import Tensor, nn


class Usual(nn.Module):
    """A small network that does nothing unusual."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1, width: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width * 4, num_classes)

    def logits(self, x: Tensor) -> Tensor:
        maps = self.norm(self.conv(x)).relu()
        answer: Tensor = self.head(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))
        return answer

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


class EndsInSoftmax(Usual):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).softmax(dim=1)


class EndsInLogSoftmax(Usual):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).log_softmax(dim=1)


class EndsInSigmoid(Usual):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).sigmoid()


class Draws(Usual):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.logits(x), 0.5)


class OneLogit(Usual):
    def __init__(self) -> None:
        super().__init__(num_classes=1)


class NoGradient(Usual):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


class ThroughNumpy(Usual):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.logits(x).detach().numpy())


class TwoAnswers(Usual):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(x)
        return -logits, logits


class OtherNames(Usual):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.logits(x)
        return {"scores": -logits, "pred": logits}


class Squeezes(Usual):
    """Right for every batch but one of a single image."""

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)[:, :, None].squeeze()


class WantsLabelsInTraining(Usual):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.training:
            assert labels is not None
            return self.logits(x) - 4 * nn.functional.one_hot(labels, 10)
        return self.logits(x)


class AnswersInfinity(Usual):
    """For images that are brighter than any, as a teacher in half precision does."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.logits(x)
        return torch.where(x.flatten(1).amax(1, keepdim=True) > 3.5, logits * torch.inf, logits)


class TakesUnitPixels(Usual):
    """Normalises by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.logits((x - 0.3054) / 0.376)
