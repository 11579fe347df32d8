"""Training on real images: the paper's scratch baseline, and how teachers are made (section 4.1)."""

from torch import Tensor
from torch.nn import functional

from zskt_dist.algorithms.protocols import Metrics, TrainedClassifier


class SupervisedTraining:
    """Cross entropy, one SGD step per batch."""

    def __init__(self, network: TrainedClassifier) -> None:
        self.network = network

    def step(self, x: Tensor, label: Tensor) -> Metrics:
        """x: [B, C, H, W], this worker's slice of the global batch; label: [B]."""
        logits = self.network(x).logits
        loss = functional.cross_entropy(logits, label)
        norm = self.network.step(loss)
        self.network.decay()
        accuracy = (logits.detach().argmax(dim=1) == label).to(logits.dtype).mean()
        return {"loss": loss.detach(), "gradient_norm": norm, "train_accuracy": accuracy}


def step_decay(iteration: int, iterations: int, milestones: tuple[float, ...], decay: float) -> float:
    """Learning-rate factor: `decay` once for every milestone (fraction of the run) that has passed."""
    return decay ** sum(iteration >= milestone * iterations for milestone in milestones)
